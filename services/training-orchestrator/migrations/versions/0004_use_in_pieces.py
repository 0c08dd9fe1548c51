"""What the ledger of use knows of attempts and of workloads already, and for whom workloads run."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_MOMENTS = (("attempts", "launched_at"), ("attempts", "used_until"), ("workloads", "seen_at"), ("workloads", "used_until"))


def upgrade() -> None:
    for table, name in _MOMENTS:
        op.add_column(table, sa.Column(name, sa.DateTime(timezone=True)))
    op.add_column("attempts", sa.Column("tokens_told", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("workloads", sa.Column("owner_id", sa.String(), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("workloads", "owner_id")
    op.drop_column("attempts", "tokens_told")
    for table, name in reversed(_MOMENTS):
        op.drop_column(table, name)
