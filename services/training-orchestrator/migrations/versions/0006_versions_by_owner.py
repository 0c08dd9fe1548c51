"""Dataset versions by owner: what he keeps is summed up whenever something comes or goes."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_index("ix_dataset_versions_owner_id", "dataset_versions", ["owner_id"])


def downgrade() -> None:
    op.drop_index("ix_dataset_versions_owner_id", "dataset_versions")
