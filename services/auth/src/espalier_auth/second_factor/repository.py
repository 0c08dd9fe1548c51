"""Every query about second factors."""

from collections.abc import Sequence

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from espalier_auth.models import table_of
from espalier_auth.second_factor.models import RecoveryCode, SecondFactor


def find_factor(session: Session, user_id: str) -> SecondFactor | None:
    """The factor of a user, live or begun."""
    return session.get(SecondFactor, user_id)


def list_factors(session: Session) -> Sequence[SecondFactor]:
    """All of them, whom nobody changes until the transaction ends."""
    return session.scalars(select(SecondFactor).order_by(SecondFactor.user_id).with_for_update()).all()


def use_step(session: Session, user_id: str, step: int, *, most_wrong: int) -> bool:
    """Uses the code of a half minute up; False when it, or a later one, was used before, or too many were wrong.

    One statement decides, so of any number of callers with the same code one gets in.
    """
    factor = table_of(SecondFactor)
    good = (factor.c.user_id == user_id, factor.c.last_step < step, factor.c.wrong_codes < most_wrong)
    used = update(factor).where(*good).values(last_step=step, wrong_codes=0).returning(factor.c.user_id)
    return session.execute(used).one_or_none() is not None


def use_recovery_code(session: Session, user_id: str, code_hash: bytes) -> bool:
    """Uses a recovery code up; False when it is none of this user's. Of any number of callers one gets in."""
    code, factor = table_of(RecoveryCode), table_of(SecondFactor)
    used = delete(code).where(code.c.code_hash == code_hash, code.c.user_id == user_id).returning(code.c.user_id)
    if session.execute(used).one_or_none() is None:
        return False
    session.execute(update(factor).where(factor.c.user_id == user_id).values(wrong_codes=0))
    return True


def count_wrong(session: Session, user_id: str) -> None:
    """Counts a wrong code."""
    factor = table_of(SecondFactor)
    session.execute(update(factor).where(factor.c.user_id == user_id).values(wrong_codes=factor.c.wrong_codes + 1))


def count_recovery_codes(session: Session, user_id: str) -> int:
    """Those that were not used."""
    return session.scalars(select(func.count()).where(RecoveryCode.user_id == user_id)).one()


def replace_recovery_codes(session: Session, user_id: str, hashes: Sequence[bytes]) -> None:
    """Lets these work and no others."""
    codes = table_of(RecoveryCode)
    session.execute(delete(codes).where(codes.c.user_id == user_id))
    if hashes:
        session.execute(insert(codes), [{"code_hash": each, "user_id": user_id} for each in hashes])
