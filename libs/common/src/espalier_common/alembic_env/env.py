"""Alembic's environment of every service: the connection is handed over by `espalier_common.migrations`."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
