"""The ledger of use, limits, and what is held against them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "usage_entries",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("amount", sa.Float(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("succeeded", sa.Boolean(), nullable=False),
        sa.Column("queue_wait", sa.Float()),
        sa.PrimaryKeyConstraint("id", name="pk_usage_entries"),
    )
    op.create_index("ix_usage_entries_user", "usage_entries", ["user_id", "kind", "at"], postgresql_include=["amount"])
    op.create_index(
        "ix_usage_entries_at",
        "usage_entries",
        ["at", "kind"],
        postgresql_include=["user_id", "model", "source", "amount"],
    )
    op.create_table(
        "quotas",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("user_id", sa.Uuid(as_uuid=False)),
        sa.Column("group_id", sa.Uuid(as_uuid=False)),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("amount", sa.Float(), nullable=False),
        sa.Column("period", sa.String(24), nullable=False),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quotas"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_quotas_user_id_users", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name="fk_quotas_group_id_groups", ondelete="CASCADE"),
        sa.UniqueConstraint("user_id", "kind", "period", name="uq_quotas_user_id"),
        sa.UniqueConstraint("group_id", "kind", "period", name="uq_quotas_group_id"),
        sa.CheckConstraint("(user_id IS NULL) <> (group_id IS NULL)", name="ck_quotas_binds_one"),
    )
    op.create_table(
        "usage_holds",
        sa.Column("reservation_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("amount", sa.Float(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("reservation_id", "kind", name="pk_usage_holds"),
    )
    op.create_index(
        "ix_usage_holds_open",
        "usage_holds",
        ["user_id", "kind"],
        postgresql_include=["expires_at", "amount"],
        postgresql_where=sa.text("settled_at IS NULL"),
    )
    op.create_index("ix_usage_holds_expires_at", "usage_holds", ["expires_at"])


def downgrade() -> None:
    op.drop_table("usage_holds")
    op.drop_table("quotas")
    op.drop_table("usage_entries")
