"""Deployments by name: each completion over the OpenAI API asks for the newest of one."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("ix_deployments_name_newest", "deployments", ["name", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_deployments_name_newest", "deployments")
