"""gRPC plumbing shared by every service: servers, clients, status mapping, tensors on the wire."""
