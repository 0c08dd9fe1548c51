"""Chat's process: `python -m espalier_chat [serve|migrate]`."""

from datetime import timedelta
from functools import partial

from espalier_chat.answers import ORPHAN_SILENCE
from espalier_chat.assembly import NAME, assemble
from espalier_chat.completions import SILENCE
from espalier_chat.settings import ChatSettings
from espalier_common.bus import Bus
from espalier_common.db import Database
from espalier_common.outbox import OutboxRelay
from espalier_common.rpc.server import Service, run


def build(settings: ChatSettings) -> Service:
    """Everything wired, nothing started."""
    database = Database(settings.database_url)
    bus = Bus(settings.nats_url, name=NAME)
    parts = assemble(settings, database)
    # On one machine there is one chat process: what streams when it starts was left by the one before.
    silence, left_over = (timedelta(0), timedelta(0)) if settings.home else (ORPHAN_SILENCE, SILENCE)
    return Service(
        name=NAME,
        package="espalier_chat",
        settings=settings,
        database=database,
        bus=bus,
        servicers=parts.servicers,
        background=[OutboxRelay(database, bus).run, parts.answers.run, partial(parts.completions.run, left_over)],
        on_start=[lambda: parts.answers.cut_orphans(silence)],
        on_drain=[parts.answers.drain, parts.completions.drain],
        on_stop=[parts.upstream.close, parts.deployments.close],
    )


if __name__ == "__main__":
    run(ChatSettings, build)
