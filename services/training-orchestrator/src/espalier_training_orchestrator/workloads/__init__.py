"""Long-running servers that other services have launched."""
