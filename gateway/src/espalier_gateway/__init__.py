"""The HTTP edge of the platform."""
