"""The OpenAI API below /v1: what its clients may ask here, in their words."""
