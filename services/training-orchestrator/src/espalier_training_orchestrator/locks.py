"""Locks in PostgreSQL that replicas share; they go with the connection, so a killed process leaves none behind."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session


@contextmanager
def single_flight(engine: Engine, name: str) -> Iterator[bool]:
    """True for the one holder of the name at a time, on a connection of its own; False for everybody else."""
    with engine.connect() as plain, plain.execution_options(isolation_level="AUTOCOMMIT") as connection:
        held = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _key(name)}).scalar_one()
        try:
            yield bool(held)
        finally:
            if held:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _key(name)})


def wait_for_turn(session: Session, name: str) -> None:
    """Lets one transaction at a time go on under this name, until its end."""
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _key(name)})


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
