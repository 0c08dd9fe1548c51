"""One gRPC server and one way to open a channel."""
