"""Device, address and last use of sessions; revocations, tries of passwords, invitations, links for a new password."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for name in ("address", "agent"):
        op.add_column("login_sessions", sa.Column(name, sa.String(), server_default="", nullable=False))
    op.add_column("login_sessions", sa.Column("last_used_at", sa.DateTime(timezone=True)))
    op.add_column("signing_keys", sa.Column("signs_from", sa.DateTime(timezone=True)))
    op.create_table(
        "revocations",
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_revocations"),
    )
    op.create_index("ix_revocations_created_at", "revocations", ["created_at"])
    op.create_table(
        "password_tries",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("bucket", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_password_tries"),
    )
    op.create_index("ix_password_tries_bucket_started_at", "password_tries", ["bucket", "started_at"])
    op.create_table(
        "invitations",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("roles", JSONB(), nullable=False),
        sa.Column("group_ids", JSONB(), nullable=False),
        sa.Column("creator_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
        sa.UniqueConstraint("token_hash", name="uq_invitations_token_hash"),
        sa.ForeignKeyConstraint(
            ["creator_id"], ["users.id"], name="fk_invitations_creator_id_users", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_invitations_creator_id", "invitations", ["creator_id"])
    op.create_table(
        "password_resets",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_password_resets"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_password_resets_user_id_users", ondelete="CASCADE"),
    )
    op.create_index("ix_password_resets_user_id", "password_resets", ["user_id"])


def downgrade() -> None:
    for table in ("password_resets", "invitations", "password_tries", "revocations"):
        op.drop_table(table)
    op.drop_column("signing_keys", "signs_from")
    for name in ("last_used_at", "agent", "address"):
        op.drop_column("login_sessions", name)
