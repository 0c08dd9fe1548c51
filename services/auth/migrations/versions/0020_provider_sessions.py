"""By which session at a provider one here began, and which of those have ended."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.create_table(
        "provider_sessions",
        sa.Column("session_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("sid", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="pk_provider_sessions"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["login_sessions.id"],
            name="fk_provider_sessions_session_id_login_sessions",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_provider_sessions_issuer_subject", "provider_sessions", ["issuer", "subject"])
    op.create_index("ix_provider_sessions_issuer_sid", "provider_sessions", ["issuer", "sid"])
    op.create_table(
        "provider_logouts",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("sid", sa.String(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="pk_provider_logouts"),
    )
    op.create_index("ix_provider_logouts_expires_at", "provider_logouts", ["expires_at"])


def downgrade() -> None:
    op.drop_table("provider_logouts")
    op.drop_table("provider_sessions")
