"""The second factor of a user, and its recovery codes."""

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from espalier_auth.models import Base
from espalier_common.db import Id, utc_now


class SecondFactor(Base):
    """An authenticator of a user, since its enrolment began. It is live once `User.second_factor_since` is set."""

    __tablename__ = "second_factors"

    user_id: Mapped[Id] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    # Sealed with the master key, under the id of its user; see `keys.py`.
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    # Which master key sealed it.
    master_key_id: Mapped[str]
    begun_at: Mapped[datetime] = mapped_column(default=utc_now)
    # The newest half minute of which a code was used: neither that code nor an older one is good again.
    last_step: Mapped[int] = mapped_column(default=0)
    # Wrong codes since the last right one.
    wrong_codes: Mapped[int] = mapped_column(default=0)


class RecoveryCode(Base):
    """Signs in once in place of a code. It has 120 random bits, so SHA-256 needs no salt. Deleted by its use."""

    __tablename__ = "recovery_codes"

    code_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[Id] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
