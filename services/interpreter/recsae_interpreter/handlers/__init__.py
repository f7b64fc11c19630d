"""Use cases of the interpreter, free of gRPC: adapters call them, they call the domain."""
