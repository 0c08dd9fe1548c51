"""What becomes of second factors stands in the audit log: who, what, and no secret."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from espalier.auth.v1 import audit_pb2, audit_pb2_grpc, second_factor_pb2, service_pb2
from espalier_auth.assembly import REMOVE_SECOND_FACTOR, build

from .answers import refusal

SERVICE = "espalier.auth.v1.SecondFactorService"
LOGIN = "espalier.auth.v1.AuthService/Login"
DONE, REFUSED = audit_pb2.AUDIT_RESULT_DONE, audit_pb2.AUDIT_RESULT_REFUSED


@pytest.fixture
async def auth(start_auth: Callable[..., Awaitable[Any]], nats_url: str) -> Any:
    """A running auth whose events go through NATS."""
    return await start_auth(nats_url=nats_url)


async def told(auth: Any, action: str, *, count: int = 1) -> list[audit_pb2.AuditEvent]:
    """The events of an action, the newest first, as soon as there are so many."""
    log = audit_pb2_grpc.AuditServiceStub(auth.channel((await auth.login()).access_token))
    end = time.monotonic() + 120
    while True:
        request = audit_pb2.ListAuditEventsRequest(page_size=200, action=action)
        found = [event for event in (await log.ListAuditEvents(request)).events if event.actor_name != "admin"]
        if len(found) >= count:
            return found
        assert time.monotonic() < end, f"{len(found)} of {count} events of {action}"
        await asyncio.sleep(0.05)


async def test_enrolment_use_and_removal_are_told_without_secrets(auth: Any, owner_at: Any) -> None:
    mia = await owner_at(auth, "mia")
    await mia.login()
    begun = await mia.begin()
    await mia.confirm()
    planted = [begun.secret, begun.otpauth_uri, *mia.recovery_codes]
    used, wrong = mia.recovery_codes[0], mia.wrong_code()
    await mia.login(used)
    assert (await refusal(mia.login(wrong)))[1] == "SECOND_FACTOR_WRONG"
    factor = mia.factor()
    removal = second_factor_pb2.RemoveMySecondFactorRequest
    assert (await refusal(factor.RemoveMySecondFactor(removal(code=wrong))))[1] == "SECOND_FACTOR_WRONG"
    request = second_factor_pb2.CreateMyRecoveryCodesRequest(code=mia.recovery_codes[1])
    planted += (await factor.CreateMyRecoveryCodes(request)).recovery_codes
    await factor.RemoveMySecondFactor(removal(code=mia.next_code()))

    [begin] = await told(auth, f"{SERVICE}/BeginMySecondFactor")
    [confirm] = await told(auth, f"{SERVICE}/ConfirmMySecondFactor")
    assert {(event.actor_name, event.result) for event in (begin, confirm)} == {("mia", DONE)}
    assert json.loads(confirm.after)[f"users/{confirm.actor_id}"]["second_factor_since"]
    refused, with_code, _ = await told(auth, LOGIN, count=3)
    assert (refused.result, refused.reason, refused.actor_name) == (REFUSED, "SECOND_FACTOR_WRONG", "mia")
    label = f"recovery_codes/{confirm.actor_id}"
    left = [json.loads(text)[label]["recovery_codes_left"] for text in (with_code.before, with_code.after)]
    assert (with_code.result, left) == (DONE, [10, 9])
    [renewed] = await told(auth, f"{SERVICE}/CreateMyRecoveryCodes")
    assert json.loads(renewed.after)[label]["recovery_codes_left"] == 10
    removed, not_removed = await told(auth, f"{SERVICE}/RemoveMySecondFactor", count=2)
    assert (not_removed.result, not_removed.reason) == (REFUSED, "SECOND_FACTOR_WRONG")
    assert removed.result == DONE
    assert json.loads(removed.before)[f"users/{confirm.actor_id}"]["second_factor_since"]
    everything = " ".join(str(event) for event in await told(auth, "espalier.auth"))
    planted += [text.replace("-", "").upper() for text in planted]
    assert not [text for text in [*planted, f'"{wrong}"'] if text in everything]


async def test_removals_by_others_are_told_whoever_does_it(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    build(auth.settings).commands[REMOVE_SECOND_FACTOR]("mia")

    [event] = await told(auth, f"{SERVICE}/RemoveUserSecondFactor")
    user_id = (await auth.users((await mia.login()).access_token).GetMe(service_pb2.GetMeRequest())).user.id
    assert (event.target, event.result, event.actor_id) == (f"users/{user_id}", DONE, "")
    assert "a command on the machine" in event.after
