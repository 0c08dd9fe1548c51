"""What is kept is told by model."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.add_column("usage_entries", sa.Column("by_model", JSONB()))


def downgrade() -> None:
    op.drop_column("usage_entries", "by_model")
