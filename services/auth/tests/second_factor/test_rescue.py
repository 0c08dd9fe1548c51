"""Commands on the machine: they let the only administrator back in, and stand in the audit log."""

import os
import subprocess
import sys
from typing import Any

from sqlalchemy import select

from espalier.auth.v1 import audit_pb2, registration_pb2, registration_pb2_grpc
from espalier_auth.models import User
from espalier_common.audit.recording import subject_of
from espalier_common.tables import outbox

from .answers import refresh, refusal

NEW_PASSWORD = "a loud purple lamp"
ADDRESS = "https://llm.example.org"


async def test_a_lost_second_factor_is_removed(auth: Any, owner_at: Any) -> None:
    mia = await (await owner_at(auth, "mia")).enrol()
    before = await mia.login(mia.next_code())
    unknown, done, again = [command(auth, "remove-second-factor", name) for name in ("nobody", "mia", "mia")]

    assert (unknown.returncode, done.returncode, again.returncode) == (78, 0, 78)
    assert "There is no user 'nobody'" in unknown.stderr
    assert "'mia' has no second factor" in again.stderr
    assert (await mia.login()).access_token
    assert await refusal(refresh(auth, before.refresh_token)) == ("UNAUTHENTICATED", "INVALID_REFRESH_TOKEN")
    assert told(auth) == [("SecondFactorService/RemoveUserSecondFactor", target_of(auth, "mia"), "")]


async def test_for_a_lost_password_a_link_is_printed_that_works_once(auth: Any, owner_at: Any) -> None:
    mia = await owner_at(auth, "mia")
    before = await mia.login()
    unknown, homeless = command(auth, "reset-password", "nobody"), command(auth, "reset-password", "mia", address="")
    done = command(auth, "reset-password", "Mia")

    assert (unknown.returncode, unknown.stdout, "There is no user 'nobody'" in unknown.stderr) == (78, "", True)
    assert (homeless.returncode, homeless.stdout, "ESPALIER_PUBLIC_URL" in homeless.stderr) == (78, "", True)
    link, _, token = done.stdout.strip().partition("#token=")
    assert (done.returncode, link) == (0, f"{ADDRESS}/reset-password")
    assert token not in done.stderr
    assert told(auth) == [("RegistrationService/CreatePasswordReset", target_of(auth, "mia"), "")]

    anybody = registration_pb2_grpc.RegistrationServiceStub(auth.channel())
    request = registration_pb2.ResetPasswordRequest(token=token, new_password=NEW_PASSWORD)
    await anybody.ResetPassword(request)
    mia.password = NEW_PASSWORD
    assert (await mia.login()).access_token
    assert await refusal(refresh(auth, before.refresh_token)) == ("UNAUTHENTICATED", "INVALID_REFRESH_TOKEN")
    assert (await refusal(anybody.ResetPassword(request)))[1] == "INVALID_RESET_LINK"


async def test_a_link_is_made_for_nobody_who_could_not_use_it(auth: Any, owner_at: Any) -> None:
    for name, change in {"leo": {"disabled": True}, "kim": {"identity_provider": "campus"}}.items():
        await owner_at(auth, name)
        with auth.database.transaction() as session:
            user = session.scalars(select(User).where(User.username == name)).one()
            for field, value in change.items():
                setattr(user, field, value)
    disabled, elsewhere = command(auth, "reset-password", "leo"), command(auth, "reset-password", "kim")

    assert (disabled.returncode, "is disabled" in disabled.stderr) == (78, True)
    assert (elsewhere.returncode, "identity provider" in elsewhere.stderr) == (78, True)
    assert disabled.stdout == elsewhere.stdout == ""
    assert told(auth) == []


def command(auth: Any, *words: str, address: str = ADDRESS) -> subprocess.CompletedProcess[str]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("ESPALIER_")}
    variables = {
        "ESPALIER_DATABASE_URL": auth.settings.database_url,
        "ESPALIER_NATS_URL": auth.settings.nats_url,
        "ESPALIER_MASTER_KEY": auth.settings.master_key.get_secret_value(),
        "ESPALIER_PUBLIC_URL": address,
    }
    return subprocess.run(
        [sys.executable, "-m", "espalier_auth", *words],
        env=others | variables, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def target_of(auth: Any, username: str) -> str:
    with auth.database.transaction() as session:
        return f"users/{session.scalars(select(User.id).where(User.username == username)).one()}"


def told(auth: Any) -> list[tuple[str, str, str]]:
    """Action, target and actor of what the audit log will hear of the commands."""
    with auth.database.transaction() as session:
        rows = session.execute(select(outbox).where(outbox.c.subject == subject_of("auth")).order_by(outbox.c.sequence))
        events = [audit_pb2.AuditEvent.FromString(row.payload) for row in rows]
    return [
        (event.action.removeprefix("espalier.auth.v1."), event.target, event.actor_id)
        for event in events
        if "a command on the machine" in event.after
    ]
