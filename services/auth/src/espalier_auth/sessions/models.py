"""What ends before it expires."""

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base
from espalier_common.db import utc_now


class Revocation(Base):
    """Tokens of a user, a session or an API key that are refused, though they were well signed."""

    __tablename__ = "revocations"

    # Id of a user, a session or an API key.
    subject: Mapped[str] = mapped_column(primary_key=True)
    # Tokens issued before this are refused; beyond the life of any token for what never comes back.
    not_before: Mapped[datetime]
    # When it was decided; forgotten once no token lives that is older.
    created_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
