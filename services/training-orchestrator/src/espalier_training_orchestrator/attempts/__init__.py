"""What runners of attempts say and hear."""
