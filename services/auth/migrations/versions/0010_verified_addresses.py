"""An e-mail address that is known to be somebody's is his alone."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    # Replicas of the release before neither read nor write it: what they do to `email` verifies nothing.
    op.add_column("users", sa.Column("verified_email", sa.String()))
    # Of the addresses until now those are known that a provider of the user told as well; who wrote the others, nobody
    # can say. Where two users have the same one, it is the elder's.
    op.execute(
        """
        UPDATE users SET verified_email = known.email
        FROM (
            SELECT DISTINCT ON (users.email) users.id, users.email
            FROM users JOIN external_identities AS told ON told.user_id = users.id AND told.email = users.email
            WHERE users.email <> ''
            ORDER BY users.email, users.created_at, users.id
        ) AS known
        WHERE users.id = known.id
        """
    )
    op.create_unique_constraint("uq_users_verified_email", "users", ["verified_email"])


def downgrade() -> None:
    op.drop_column("users", "verified_email")
