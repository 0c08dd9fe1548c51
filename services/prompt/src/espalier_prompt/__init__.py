"""System prompts in immutable versions."""
