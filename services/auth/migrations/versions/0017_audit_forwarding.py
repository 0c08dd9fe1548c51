"""How far the audit log has gone to a destination elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "audit_forwarding",
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_audit_forwarding")),
    )


def downgrade() -> None:
    op.drop_table("audit_forwarding")
