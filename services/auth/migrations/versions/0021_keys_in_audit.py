"""The API key by which somebody did what the audit log tells."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("audit_events", sa.Column("api_key_id", sa.String(), server_default="", nullable=False))


def downgrade() -> None:
    op.drop_column("audit_events", "api_key_id")
