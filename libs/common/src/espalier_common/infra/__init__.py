"""PostgreSQL, NATS and detached processes on one machine."""
