"""The tokens of trainings are told apart without reading the ledger: limits of tokens leave them out."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_OF_USER = ["user_id", "kind", "at"]


def upgrade() -> None:
    op.create_index("ix_usage_entries_user_source", "usage_entries", _OF_USER, postgresql_include=["source", "amount"])
    op.create_index(
        "ix_usage_entries_training", "usage_entries", ["kind", "at"], postgresql_where=sa.text("source = 'training'")
    )
    op.drop_index("ix_usage_entries_user", "usage_entries")


def downgrade() -> None:
    op.create_index("ix_usage_entries_user", "usage_entries", _OF_USER, postgresql_include=["amount"])
    op.drop_index("ix_usage_entries_training", "usage_entries")
    op.drop_index("ix_usage_entries_user_source", "usage_entries")
