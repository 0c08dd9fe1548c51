"""Sums of use by day. PostgreSQL keeps them itself, with each entry, whichever release writes it."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_TABLE = "usage_days"
_SUMS = """
    INSERT INTO usage_days AS sums
        (day, kind, user_id, model, source, amount, ended, succeeded, waits, wait_seconds)
    SELECT date_trunc('day', at, 'UTC'), kind, user_id, model, source, sum(amount),
           count(succeeded), count(*) FILTER (WHERE succeeded), count(queue_wait), coalesce(sum(queue_wait), 0)
    FROM {entries} WHERE kind <> 'STORED_BYTES'
    GROUP BY 1, 2, 3, 4, 5
    ORDER BY 1, 2, 3, 4, 5 -- one order, so that two who add at once never wait in a ring
"""


def upgrade() -> None:
    op.create_table(
        _TABLE,
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(24), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("amount", sa.Float(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=False),
        sa.Column("succeeded", sa.BigInteger(), nullable=False),
        sa.Column("waits", sa.BigInteger(), nullable=False),
        sa.Column("wait_seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("day", "kind", "user_id", "model", "source", name=op.f("pk_usage_days")),
    )
    op.create_index("ix_usage_days_user", _TABLE, ["user_id", "day"])
    # Nobody adds an entry between the sums of those that are there and the beginning of the rule.
    op.execute("LOCK TABLE usage_entries IN SHARE ROW EXCLUSIVE MODE")
    op.execute(_SUMS.format(entries="usage_entries"))
    op.execute(f"""
        CREATE FUNCTION usage_days_add() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            {_SUMS.format(entries="added")}
            ON CONFLICT (day, kind, user_id, model, source) DO UPDATE SET
                amount = sums.amount + excluded.amount,
                ended = sums.ended + excluded.ended,
                succeeded = sums.succeeded + excluded.succeeded,
                waits = sums.waits + excluded.waits,
                wait_seconds = sums.wait_seconds + excluded.wait_seconds;
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER usage_days_add AFTER INSERT ON usage_entries
        REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION usage_days_add()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER usage_days_add ON usage_entries")
    op.execute("DROP FUNCTION usage_days_add()")
    op.drop_table(_TABLE)
