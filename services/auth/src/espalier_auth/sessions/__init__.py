"""The signed-in devices of a person, and what ends before it expires."""
