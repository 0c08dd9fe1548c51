"""The OpenAPI 3.1 document of the platform, derived from the descriptors and the comments of the protos."""
