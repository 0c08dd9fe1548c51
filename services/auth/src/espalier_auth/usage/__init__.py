"""What was used, how much may be used, and what that tells."""
