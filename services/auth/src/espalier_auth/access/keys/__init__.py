"""API keys: their owners' calls, and what they are worth."""
