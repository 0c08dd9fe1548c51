"""A report may be a part of a use that goes on: it has ended neither well nor badly."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.alter_column("usage_entries", "succeeded", nullable=True)


def downgrade() -> None:
    op.execute(sa.text("UPDATE usage_entries SET succeeded = true WHERE succeeded IS NULL"))
    op.alter_column("usage_entries", "succeeded", nullable=False)
