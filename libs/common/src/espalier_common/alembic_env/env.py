"""Alembic's environment of every service: the connection is handed over by `espalier_common.migrations`.

Alembic runs this file as a script and sets `context.config` before; imported, it does nothing.
"""

from alembic import context


def run() -> None:
    """Runs the migrations that Alembic has planned, each in a transaction of its own."""
    context.configure(connection=context.config.attributes["connection"], transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


if hasattr(context, "config"):
    run()
