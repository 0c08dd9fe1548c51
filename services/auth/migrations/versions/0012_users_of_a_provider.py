"""Users are found by the provider with which they sign in, in the order in which they are listed."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.create_index("ix_users_identity_provider", "users", ["identity_provider", "username"])


def downgrade() -> None:
    op.drop_index("ix_users_identity_provider", "users")
