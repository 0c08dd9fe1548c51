"""Datasets, training runs, attempts, checkpoints, telemetry and workloads."""
