"""A second factor beside the password: codes of an authenticator, and recovery codes."""
