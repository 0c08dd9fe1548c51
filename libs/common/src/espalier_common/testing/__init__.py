"""Fixtures for the tests of every package; nothing here runs in production."""
