"""Completions that are being relayed, so that a process that is killed leaves behind what they used."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "running_completions",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("owner_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("base_url", sa.String(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_running_completions"),
    )
    op.create_index("ix_running_completions_touched_at", "running_completions", ["touched_at"])


def downgrade() -> None:
    op.drop_table("running_completions")
