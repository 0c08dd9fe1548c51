"""A second factor beside the password, its recovery codes, and which sessions a provider vouched for."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("users", sa.Column("second_factor_since", sa.DateTime(timezone=True)))
    op.add_column(
        "login_sessions", sa.Column("by_provider", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    )
    # Of the sessions until now nobody wrote down how they began; those of who has no password began at a provider.
    op.execute(
        """
        UPDATE login_sessions SET by_provider = true
        FROM users WHERE users.id = login_sessions.user_id AND users.password_hash = ''
        """
    )
    op.create_table(
        "second_factors",
        sa.Column("user_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("master_key_id", sa.String(), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_step", sa.Integer(), nullable=False),
        sa.Column("wrong_codes", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_second_factors"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_second_factors_user_id_users", ondelete="CASCADE"),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.PrimaryKeyConstraint("code_hash", name="pk_recovery_codes"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_recovery_codes_user_id_users", ondelete="CASCADE"),
    )
    op.create_index("ix_recovery_codes_user_id", "recovery_codes", ["user_id"])


def downgrade() -> None:
    op.drop_table("recovery_codes")
    op.drop_table("second_factors")
    op.drop_column("login_sessions", "by_provider")
    op.drop_column("users", "second_factor_since")
