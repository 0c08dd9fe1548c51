"""Tries of passwords are counted in one row a bucket."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    # The table password_tries stays for the replicas that still count in it; a later revision drops it.
    op.create_table(
        "password_counts",
        sa.Column("bucket", sa.String(), nullable=False),
        sa.Column("failed", JSONB(), nullable=False),
        sa.Column("running", JSONB(), nullable=False),
        sa.Column("kept_until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("bucket", name="pk_password_counts"),
    )
    # Each try updates a row three times in place; there is to be room for that in its page.
    op.execute("ALTER TABLE password_counts SET (fillfactor = 50)")


def downgrade() -> None:
    op.drop_table("password_counts")
