"""How many tokens an attempt trained on, and the run before it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for name in ("tokens_before", "tokens"):
        op.add_column("attempts", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("attempts", "tokens")
    op.drop_column("attempts", "tokens_before")
