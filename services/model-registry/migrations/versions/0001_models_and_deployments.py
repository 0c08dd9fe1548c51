"""Models, versions, deployments."""

import sqlalchemy as sa
from alembic import op
from espalier_common.migrations import create_messaging_tables, drop_messaging_tables
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_messaging_tables(op)
    op.create_table(
        "models",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("owner_id", sa.String, nullable=False),
        sa.Column("latest_version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("owner_id", "name", name="uq_models_owner_id_name"),
    )
    op.create_index("ix_models_newest", "models", ["created_at", "id"])
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("model_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("dataset_version_ids", JSONB, nullable=False),
        sa.Column("base_run_id", sa.Uuid(as_uuid=False)),
        sa.Column("base_model_version_id", sa.Uuid(as_uuid=False)),
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("manifest_sha256", sa.String, nullable=False),
        sa.Column("parameters", sa.Float, nullable=False),
        sa.Column("template", sa.String, nullable=False),
        sa.Column("owner_id", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
        sa.UniqueConstraint("model_id", "number", name="uq_model_versions_model_id_number"),
        sa.UniqueConstraint("model_id", "run_id", name="uq_model_versions_model_id_run_id"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name="fk_model_versions_model_id_models"),
        sa.ForeignKeyConstraint(
            ["base_model_version_id"],
            ["model_versions.id"],
            name="fk_model_versions_base_model_version_id_model_versions",
        ),
    )
    op.create_index("ix_model_versions_run_id", "model_versions", ["run_id"])
    op.create_index("ix_model_versions_base_run_id", "model_versions", ["base_run_id"])
    op.create_table(
        "deployments",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("model_version_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("device", sa.String, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("base_url", sa.String, nullable=False),
        sa.Column("owner_id", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True)),
        sa.Column("launched_by", sa.String, nullable=False),
        sa.Column("relaunches", JSONB, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("check_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_deployments"),
        sa.ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name="fk_deployments_model_version_id_model_versions"
        ),
    )
    op.create_index(
        "uq_deployments_name_live",
        "deployments",
        ["name"],
        unique=True,
        postgresql_where=sa.text("state IN ('pending', 'starting', 'ready')"),
    )
    op.create_index("ix_deployments_check_at", "deployments", ["check_at"])
    op.create_index("ix_deployments_newest", "deployments", ["created_at", "id"])


def downgrade() -> None:
    op.drop_table("deployments")
    op.drop_table("model_versions")
    op.drop_table("models")
    drop_messaging_tables(op)
