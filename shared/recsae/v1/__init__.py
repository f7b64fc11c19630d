"""Generated gRPC stubs; run `make protos` to renew them."""
