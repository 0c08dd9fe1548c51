"""Slows down who guesses passwords, and locks nobody out."""
