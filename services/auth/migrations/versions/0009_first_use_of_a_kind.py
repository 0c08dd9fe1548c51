"""Since when a kind of use is reported is found without reading the ledger."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_index("ix_usage_entries_kind", "usage_entries", ["kind", "at"])


def downgrade() -> None:
    op.drop_index("ix_usage_entries_kind", "usage_entries")
