"""What an administrator changes while the platform runs: settings, and banners that everybody sees."""
