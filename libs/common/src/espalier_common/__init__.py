"""Domain-free plumbing of every Espalier service."""
