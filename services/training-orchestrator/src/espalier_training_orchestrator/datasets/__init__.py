"""Datasets and their checked, immutable versions."""
