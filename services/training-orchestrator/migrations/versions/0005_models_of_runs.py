"""The model under which the ledger of use counts a run: what it starts from, or its own name where it starts one."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NAME_THEM = """
    WITH RECURSIVE named AS (
        SELECT id, coalesce(nullif(document #>> '{base_model,hub}', ''),
                            nullif(regexp_replace(document #>> '{base_model,directory}', '^.*/(?=[^/])|/+$', '', 'g'), ''),
                            name) AS model
        FROM runs WHERE coalesce(document #>> '{base_model,run_id}', '') = ''
        UNION ALL
        SELECT runs.id, named.model
        FROM runs JOIN named ON runs.document #>> '{base_model,run_id}' = named.id::text
    )
    UPDATE runs SET model = named.model FROM named WHERE runs.id = named.id
"""


def upgrade() -> None:
    op.add_column("runs", sa.Column("model", sa.String(), server_default="", nullable=False))
    op.execute(NAME_THEM)


def downgrade() -> None:
    op.drop_column("runs", "model")
