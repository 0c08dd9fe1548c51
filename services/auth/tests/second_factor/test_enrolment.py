"""A second factor is enrolled and removed by its owner, who shows that he is there and has it."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select, update

from espalier.auth.v1 import second_factor_pb2 as pb
from espalier.auth.v1.service_pb2 import ListUsersRequest
from espalier_auth.models import LoginSession
from espalier_auth.second_factor.codes import hash_of
from espalier_auth.second_factor.models import RecoveryCode, SecondFactor
from espalier_auth.service import RECENT_SIGN_IN
from espalier_common.db import utc_now

from .answers import refresh, refusal


async def test_a_user_enrols_and_signs_in_with_a_code_from_then_on(auth: Any, owner_at: Any) -> None:
    mia = await owner_at(auth, "mia")
    await mia.login()
    state = await mia.factor().GetMySecondFactor(pb.GetMySecondFactorRequest())
    assert (state.enrolled, state.recovery_codes_left, state.required) == (False, 0, False)

    begun = await mia.begin()
    assert begun.otpauth_uri.startswith("otpauth://totp/Espalier:mia?secret=" + begun.secret)
    # Nothing asks for a code before it was confirmed, and a wrong one confirms nothing.
    await mia.login()
    assert await refusal(mia.confirm(mia.wrong_code())) == ("PERMISSION_DENIED", "SECOND_FACTOR_WRONG")
    await mia.confirm()

    assert len(set(mia.recovery_codes)) == 10
    state = await mia.factor().GetMySecondFactor(pb.GetMySecondFactorRequest())
    assert (state.enrolled, state.recovery_codes_left) == (True, 10)
    assert state.enrol_time.ToDatetime() == mia.clock.now.replace(tzinfo=None)
    assert await refusal(mia.login()) == ("UNAUTHENTICATED", "SECOND_FACTOR_REQUIRED")
    # The code that confirmed was used by that.
    assert await refusal(mia.login(mia.code())) == ("UNAUTHENTICATED", "SECOND_FACTOR_WRONG")
    assert (await mia.login(mia.next_code())).access_token
    assert await refusal(mia.begin()) == ("ALREADY_EXISTS", "SECOND_FACTOR_ENROLLED")


async def test_users_are_found_by_whether_they_have_one(auth: Any, owner_at: Any) -> None:
    mia, ben = await (await owner_at(auth, "mia")).enrol(), await owner_at(auth, "ben")
    await ben.login()
    # One that was begun is none.
    await ben.begin()
    admin = await auth.admin()

    found = [
        [user.username for user in (await admin.ListUsers(ListUsersRequest(second_factor_enrolled=wanted))).users]
        for wanted in (True, False, None)
    ]
    assert found == [[mia.username], ["admin", "ben"], ["admin", "ben", "mia"]]


async def test_the_secret_is_sealed_and_recovery_codes_are_kept_as_hashes(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()

    with auth.database.transaction() as session:
        factor = session.scalars(select(SecondFactor)).one()
        kept = {bytes(row.code_hash) for row in session.scalars(select(RecoveryCode))}
    assert mia.secret not in bytes(factor.sealed_secret)
    assert kept == {hash_of(code) for code in mia.recovery_codes}


async def test_enrolment_ends_the_sessions_that_began_without_it(auth: Any, owner_at: Any) -> None:
    mia = await owner_at(auth, "mia")
    other = await mia.login()
    mine = await mia.login()
    await mia.begin()
    await mia.confirm()

    assert await refusal(refresh(auth, other.refresh_token)) == ("UNAUTHENTICATED", "INVALID_REFRESH_TOKEN")
    assert (await refresh(auth, mine.refresh_token)).access_token


async def test_enrolment_asks_for_a_recent_sign_in_and_ends_after_a_while(auth: Any, owner_at: Any) -> None:
    mia = await owner_at(auth, "mia")
    await mia.login()
    assert await refusal(mia.confirm("123456")) == ("FAILED_PRECONDITION", "ENROLMENT_OVER")
    await mia.begin()
    first = mia.code()
    await mia.begin()
    assert await refusal(mia.confirm(first)) == ("PERMISSION_DENIED", "SECOND_FACTOR_WRONG")
    mia.clock.advance(minutes=16)
    assert await refusal(mia.confirm()) == ("FAILED_PRECONDITION", "ENROLMENT_OVER")

    let_pass(auth)
    assert await refusal(mia.begin()) == ("PERMISSION_DENIED", "SIGN_IN_AGAIN")


async def test_removal_and_new_recovery_codes_take_a_recent_sign_in_and_a_code(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    await mia.login(mia.next_code())
    before = mia.recovery_codes
    calls = {
        "CreateMyRecoveryCodes": pb.CreateMyRecoveryCodesRequest,
        "RemoveMySecondFactor": pb.RemoveMySecondFactorRequest,
    }
    for name, request in calls.items():
        assert await refusal(getattr(mia.factor(), name)(request(code=mia.wrong_code()))) == (
            "PERMISSION_DENIED",
            "SECOND_FACTOR_WRONG",
        )
    made = await mia.factor().CreateMyRecoveryCodes(pb.CreateMyRecoveryCodesRequest(code=before[0]))
    mia.recovery_codes = list(made.recovery_codes)
    assert not set(mia.recovery_codes) & set(before)
    assert await refusal(mia.login(before[1])) == ("UNAUTHENTICATED", "SECOND_FACTOR_WRONG")

    let_pass(auth)
    for name, request in calls.items():
        # The code is asked for a second time only where it was not refused for something else.
        refused = getattr(mia.factor(), name)(request(code=mia.recovery_codes[0]))
        assert await refusal(refused) == ("PERMISSION_DENIED", "SIGN_IN_AGAIN")
    pair = await mia.login(mia.recovery_codes[0])
    other = await mia.login(mia.recovery_codes[1])
    mia.token = pair.access_token
    await mia.factor().RemoveMySecondFactor(pb.RemoveMySecondFactorRequest(code=mia.next_code()))

    assert await refusal(refresh(auth, other.refresh_token)) == ("UNAUTHENTICATED", "INVALID_REFRESH_TOKEN")
    assert (await refresh(auth, pair.refresh_token)).access_token
    assert (await mia.login()).access_token
    assert await refusal(mia.factor().RemoveMySecondFactor(pb.RemoveMySecondFactorRequest(code="123456"))) == (
        "FAILED_PRECONDITION",
        "SECOND_FACTOR_NOT_ENROLLED",
    )
    with auth.database.transaction() as session:
        assert session.scalars(select(RecoveryCode)).all() == session.scalars(select(SecondFactor)).all() == []


def let_pass(auth: Any) -> None:
    """All sessions began too long ago."""
    with auth.database.transaction() as session:
        session.execute(update(LoginSession).values(created_at=utc_now() - RECENT_SIGN_IN - timedelta(seconds=1)))
