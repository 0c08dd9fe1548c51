"""What a run holds of its owner's limits, and the size of its model."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", sa.Column("reservation_id", sa.String(), server_default="", nullable=False))
    op.add_column("runs", sa.Column("model_bytes", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("runs", "model_bytes")
    op.drop_column("runs", "reservation_id")
