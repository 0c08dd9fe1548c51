"""Evaluations and their items."""

import sqlalchemy as sa
from alembic import op

from espalier_common.migrations import create_messaging_tables, drop_messaging_tables

revision = "0001"
down_revision = None


def upgrade() -> None:
    create_messaging_tables(op)
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("owner_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scorer", sa.String(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("item_count", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.CheckConstraint("score >= 0 AND score <= 1", name="ck_evaluations_score_is_a_share"),
    )
    op.create_index("ix_evaluations_owner_id_created_at_id", "evaluations", ["owner_id", "created_at", "id"])
    op.create_index("ix_evaluations_created_at_id", "evaluations", ["created_at", "id"])
    op.create_table(
        "evaluation_items",
        sa.Column("evaluation_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("evaluation_id", "position", name="pk_evaluation_items"),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["evaluations.id"],
            name="fk_evaluation_items_evaluation_id_evaluations",
            ondelete="CASCADE",
        ),
    )


def downgrade() -> None:
    op.drop_table("evaluation_items")
    op.drop_table("evaluations")
    drop_messaging_tables(op)
