"""Use cases, one module each; they know no gRPC."""
