"""Ways into the platform besides a password that an administrator gave."""
