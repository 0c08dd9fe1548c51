"""Models, their versions with lineage, and deployments."""
