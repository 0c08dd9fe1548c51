"""Chat sessions, their messages and streaming answers."""
