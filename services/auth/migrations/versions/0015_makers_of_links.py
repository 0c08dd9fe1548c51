"""Who made a link for a new password, which is worth no more than he may still do."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("password_resets", sa.Column("creator_id", sa.Uuid(as_uuid=False)))
    op.create_foreign_key(
        "fk_password_resets_creator_id_users", "password_resets", "users", ["creator_id"], ["id"], ondelete="CASCADE"
    )


def downgrade() -> None:
    op.drop_column("password_resets", "creator_id")
