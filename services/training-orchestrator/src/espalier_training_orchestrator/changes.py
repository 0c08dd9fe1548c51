"""What the use cases tell the outside, as ports: filled with the outbox and with `announce`."""

from collections.abc import Callable

from sqlalchemy.orm import Session

from espalier_training_orchestrator.runs.models import RunMoved
from espalier_training_orchestrator.workloads.models import WorkloadMoved

Publish = Callable[[Session, RunMoved | WorkloadMoved], None]
"""Stores a domain event with the running transaction."""

Wake = Callable[[Session, str], None]
"""Wakes those who watch this run, once the running transaction is committed."""
