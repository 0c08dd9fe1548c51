"""Signing in, going on and signing out."""
