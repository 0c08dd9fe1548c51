"""`python -m espalier_training_orchestrator [serve|migrate]`: settings → database and bus → parts → server."""

import sys

from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.identity import ServiceIdentity
from espalier_common.outbox import OutboxRelay
from espalier_common.quotas import Limits
from espalier_common.rpc.server import Service, run
from espalier_training_orchestrator.assembly import assemble
from espalier_training_orchestrator.events import publish, telemetry_consumer
from espalier_training_orchestrator.launchers import open_launcher
from espalier_training_orchestrator.rpc import servicers
from espalier_training_orchestrator.settings import TrainingOrchestratorSettings

NAME = "training-orchestrator"
DATABASE_CONNECTIONS = 10  # the handlers' threads, the reconcilers with their locks, consumer and relay


def build(settings: TrainingOrchestratorSettings) -> Service:
    """Everything that the process runs."""
    database = Database(settings.database_url, pool_size=DATABASE_CONNECTIONS)
    bus = Bus(settings.nats_url, name=NAME)
    launcher = open_launcher(settings.launcher, interpreter=settings.trainer_python or sys.executable)
    auth, secret = settings.address_of("auth"), settings.service_secret.get_secret_value()
    limits = Limits(auth, token=ServiceIdentity(auth, name=NAME, secret=secret).token)
    assembly = assemble(settings, database=database, launcher=launcher, publish=publish, limits=limits)
    return Service(
        name=NAME,
        package="espalier_training_orchestrator",
        settings=settings,
        database=database,
        bus=bus,
        servicers=servicers(assembly, settings),
        background=[
            OutboxRelay(database, bus).run,
            telemetry_consumer(bus, database, assembly.intake).run,
            assembly.checker.run,
            assembly.upload_housekeeping.run,
            assembly.reconciler.run,
            assembly.workload_reconciler.run,
            assembly.holds.run,
            assembly.storage.run,
        ],
    )


if __name__ == "__main__":
    run(TrainingOrchestratorSettings, build)
