"""The model that answered, for the ledger of use."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("messages", sa.Column("model", sa.String(), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("messages", "model")
