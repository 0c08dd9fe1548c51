"""What is estimated is told apart from what was told by who knows it."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

_SUMMED = ["user_id", "model", "source", "amount"]
_ADD = """
    CREATE OR REPLACE FUNCTION usage_days_add() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO usage_days AS sums
            (day, kind, user_id, model, source, amount, ended, succeeded, waits, wait_seconds{names})
        SELECT date_trunc('day', at, 'UTC'), kind, user_id, model, source, sum(amount),
               count(succeeded), count(*) FILTER (WHERE succeeded), count(queue_wait), coalesce(sum(queue_wait), 0){sums}
        FROM added WHERE kind <> 'STORED_BYTES'
        GROUP BY 1, 2, 3, 4, 5
        ORDER BY 1, 2, 3, 4, 5 -- one order, so that two who add at once never wait in a ring
        ON CONFLICT (day, kind, user_id, model, source) DO UPDATE SET
            amount = sums.amount + excluded.amount,
            ended = sums.ended + excluded.ended,
            succeeded = sums.succeeded + excluded.succeeded,
            waits = sums.waits + excluded.waits,
            wait_seconds = sums.wait_seconds + excluded.wait_seconds{added};
        RETURN NULL;
    END $$
"""


def upgrade() -> None:
    op.add_column("usage_entries", sa.Column("estimated", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("usage_days", sa.Column("estimated", sa.Float(), server_default="0", nullable=False))
    op.execute(
        _ADD.format(
            names=", estimated",
            sums=", coalesce(sum(amount) FILTER (WHERE estimated), 0)",
            added=", estimated = sums.estimated + excluded.estimated",
        )
    )
    summed = [*_SUMMED, "estimated"]
    op.create_index("ix_usage_entries_flow", "usage_entries", ["at", "kind"], postgresql_include=summed)
    op.drop_index("ix_usage_entries_at", "usage_entries")


def downgrade() -> None:
    op.create_index("ix_usage_entries_at", "usage_entries", ["at", "kind"], postgresql_include=_SUMMED)
    op.drop_index("ix_usage_entries_flow", "usage_entries")
    op.execute(_ADD.format(names="", sums="", added=""))
    op.drop_column("usage_days", "estimated")
    op.drop_column("usage_entries", "estimated")
