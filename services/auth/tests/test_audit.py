"""What happens at auth stands in its audit log: through the outbox, a real NATS and the chain, read over gRPC."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import func, select, text

from espalier.auth.v1 import (
    access_pb2,
    access_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    registration_pb2,
    registration_pb2_grpc,
    resources_pb2,
    service_pb2,
    service_pb2_grpc,
)
from espalier_auth.audit import repository
from espalier_auth.audit.models import AuditEntry
from espalier_common.rpc.permissions import all_services

DONE, REFUSED = audit_pb2.AUDIT_RESULT_DONE, audit_pb2.AUDIT_RESULT_REFUSED
MARK = "planted-secret-5d1c"


@pytest.fixture
async def auth(start_auth: Callable[..., Awaitable[Any]], nats_url: str) -> Any:
    """A running auth whose events go through NATS."""
    return await start_auth(nats_url=nats_url, registration="open")


async def log_of(auth: Any) -> Any:
    channel = auth.channel((await auth.login()).access_token)
    return audit_pb2_grpc.AuditServiceStub(channel)


async def wait_for(auth: Any, count: int = 1, seconds: float = 120, **wanted: Any) -> list[audit_pb2.AuditEvent]:
    """The events that match, as soon as there are so many."""
    log = await log_of(auth)
    end = time.monotonic() + seconds
    while True:
        found = list((await log.ListAuditEvents(audit_pb2.ListAuditEventsRequest(page_size=200, **wanted))).events)
        if len(found) >= count:
            return found
        assert time.monotonic() < end, f"{len(found)} of {count} events: {found}"
        await asyncio.sleep(0.05)


async def test_whoever_registers_did_it_himself(auth: Any) -> None:
    request = registration_pb2.RegisterRequest(username="mia", password="a quiet green lamp")
    user = await registration_pb2_grpc.RegistrationServiceStub(auth.channel()).Register(request)
    [event] = await wait_for(auth, action="espalier.auth.v1.RegistrationService/Register")
    assert (event.actor_name, event.actor_id, event.result) == ("mia", user.id, DONE)
    # As lists show it: without the package.
    assert await wait_for(auth, action="RegistrationService/Reg") == [event]


async def test_a_change_is_told_with_what_was_before_and_after(auth: Any) -> None:
    user = await auth.create_user("vera", roles=["viewer"])
    admin = await auth.admin()
    change = resources_pb2.User(id=user.id, display_name="Vera", roles=["viewer", "tester"])
    request = service_pb2.UpdateUserRequest(user=change)
    request.update_mask.paths.extend(["display_name", "roles"])
    await admin.UpdateUser(request)
    [event] = await wait_for(auth, action="espalier.auth.v1.UserService/UpdateUser")
    assert (event.target, event.result, event.service) == (f"users/{user.id}", DONE, "auth")
    assert (event.actor_name, event.address) == ("admin", "127.0.0.1")
    assert event.request_id
    assert '"roles":["viewer"]' in event.before
    assert '"roles":["tester","viewer"]' in event.after
    assert '"display_name":"Vera"' in event.after


async def test_the_key_by_which_somebody_did_it_is_told_and_found(auth: Any) -> None:
    keys = access_pb2_grpc.ApiKeyServiceStub(auth.channel((await auth.login()).access_token))
    key = await keys.CreateApiKey(access_pb2.CreateApiKeyRequest(api_key=access_pb2.ApiKey(name="deploys")))
    groups = access_pb2_grpc.GroupServiceStub(auth.channel(key.key))
    await groups.CreateGroup(access_pb2.CreateGroupRequest(group=access_pb2.Group(name="night shift")))
    [event] = await wait_for(auth, action="espalier.auth.v1.GroupService/CreateGroup", query=key.id)
    assert (event.actor_name, event.api_key_id) == ("admin", key.id)
    [making] = await wait_for(auth, action="espalier.auth.v1.ApiKeyService/CreateApiKey")
    assert making.api_key_id == ""


async def test_who_was_in_a_group_is_told_when_it_goes(auth: Any) -> None:
    user = await auth.create_user("gail", roles=[])
    groups = access_pb2_grpc.GroupServiceStub(auth.channel((await auth.login()).access_token))
    made = await groups.CreateGroup(
        access_pb2.CreateGroupRequest(
            group=access_pb2.Group(name="night shift", roles=["viewer"], member_ids=[user.id])
        )
    )
    await groups.DeleteGroup(access_pb2.DeleteGroupRequest(group_id=made.id))
    [event] = await wait_for(auth, action="espalier.auth.v1.GroupService/DeleteGroup")
    before = json.loads(event.before)
    assert before[f"groups/{made.id}"]["roles"] == ["viewer"]
    assert before[f"groups/{made.id}/members"] == [user.id]
    assert event.after == ""


async def test_what_is_made_is_the_target(auth: Any) -> None:
    user = await auth.create_user("vera", roles=["viewer"])
    [event] = await wait_for(auth, action="espalier.auth.v1.UserService/CreateUser")
    assert event.target == f"users/{user.id}"
    assert event.before == ""


async def test_no_secret_stands_in_the_log(auth: Any) -> None:
    await auth.create_user("vera", roles=["viewer"], password=f"{MARK} first")
    pair = await auth.login("vera", f"{MARK} first")
    mine = auth.users(pair.access_token)
    await mine.ChangePassword(
        service_pb2.ChangePasswordRequest(current_password=f"{MARK} first", new_password=f"{MARK} next")
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.login("vera", f"{MARK} wrong")
    await auth.sign_in().Logout(service_pb2.LogoutRequest(refresh_token=pair.refresh_token))
    await wait_for(auth, action="espalier.auth.v1.AuthService/Logout")
    await wait_for(auth, action="espalier.auth.v1.UserService/ChangePassword")
    with auth.database.transaction() as session:
        found = "\n".join(session.scalars(text("SELECT audit_events::text FROM audit_events")))
        hashes = list(session.scalars(text("SELECT password_hash FROM users")))
    assert "vera" in found
    for secret in (MARK, pair.access_token, pair.refresh_token, "argon2", *hashes):
        assert secret not in found


async def test_sign_ins_are_told_and_refreshes_are_not(auth: Any) -> None:
    pair = await auth.login()
    await auth.sign_in().Refresh(service_pb2.RefreshRequest(refresh_token=pair.refresh_token))
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.login("admin", "wrong")
    [refused] = await wait_for(auth, action="espalier.auth.v1.AuthService/Login", result=REFUSED)
    assert (refused.actor_name, refused.actor_id, refused.reason) == ("admin", "", "INVALID_CREDENTIALS")
    done = await wait_for(auth, action="espalier.auth.v1.AuthService/Login", result=DONE)
    assert {event.actor_name for event in done} == {"admin"}
    assert all(event.actor_id for event in done)
    assert not await wait_for(auth, 0, action="espalier.auth.v1.AuthService/Refresh")


async def test_a_password_in_the_field_of_the_name_is_told_nowhere(auth: Any) -> None:
    signed_in = service_pb2_grpc.AuthServiceStub(auth.channel((await auth.login()).access_token))
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.login(MARK, "wrong")
    with pytest.raises(grpc.aio.AioRpcError):
        await signed_in.Login(service_pb2.LoginRequest(username=MARK, password="wrong"))
    registration = registration_pb2_grpc.RegistrationServiceStub(auth.channel())
    with pytest.raises(grpc.aio.AioRpcError):
        await registration.ForgotPassword(registration_pb2.ForgotPasswordRequest(login=MARK))
    _, refused = await wait_for(auth, 2, action="espalier.auth.v1.AuthService/Login", result=REFUSED)
    assert (refused.actor_name, refused.address, refused.reason) == ("", "127.0.0.1", "INVALID_CREDENTIALS")
    with auth.database.transaction() as session:
        for table in ("audit_events", "outbox", "password_counts"):
            kept = "\n".join(session.scalars(text(f"SELECT {table}::text FROM {table}")))
            assert MARK not in kept
            assert MARK.encode().hex() not in kept


async def test_a_refresh_token_that_comes_again_is_told_apart(auth: Any) -> None:
    pair = await auth.login()
    again = service_pb2.RefreshRequest(refresh_token=pair.refresh_token)
    await auth.sign_in().Refresh(again)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await auth.sign_in().Refresh(again)
    assert "TOKEN_REUSED" not in str(caught.value)
    [event] = await wait_for(auth, action="espalier.auth.v1.AuthService/Refresh")
    assert (event.reason, event.result) == ("TOKEN_REUSED", REFUSED)
    assert event.actor_id
    assert event.actor_name == "admin"


async def test_nobody_is_called_in_the_log_as_he_calls_himself(auth: Any) -> None:
    await auth.create_user("vera", roles=["viewer"])
    vera = await auth.login("vera", "a quiet green lamp")
    called = service_pb2.UpdateMeRequest(user=resources_pb2.User(display_name="Administrator"))
    called.update_mask.paths.append("display_name")
    await auth.users(vera.access_token).UpdateMe(called)
    again = await auth.login("vera", "a quiet green lamp")
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.users(again.access_token).ListUsers(service_pb2.ListUsersRequest())
    [event] = await wait_for(auth, action="espalier.auth.v1.UserService/ListUsers", actor="vera")
    assert event.actor_name == "vera"


async def test_refusals_are_told_with_their_reason(auth: Any) -> None:
    await auth.create_user("vera", roles=["viewer"])
    vera = await auth.login("vera", "a quiet green lamp")
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.users(vera.access_token).ListUsers(service_pb2.ListUsersRequest())
    with pytest.raises(grpc.aio.AioRpcError):
        await auth.users("no-token-at-all").GetMe(service_pb2.GetMeRequest())
    [event] = await wait_for(auth, action="espalier.auth.v1.UserService/ListUsers", result=REFUSED)
    assert (event.actor_name, event.reason, event.target) == ("vera", "PERMISSION_DENIED", "users")
    [event] = await wait_for(auth, action="espalier.auth.v1.UserService/GetMe", result=REFUSED)
    assert (event.actor_id, event.reason) == ("", "UNAUTHENTICATED")


async def test_an_event_waits_for_nats_and_arrives_once(
    start_auth: Callable[..., Awaitable[Any]], nats_url: str
) -> None:
    alone = await start_auth()
    user = await alone.create_user("vera", roles=["viewer"])
    await alone.running.stop(grace=0)
    auth = await start_auth(nats_url=nats_url)
    [event] = await wait_for(auth, action="espalier.auth.v1.UserService/CreateUser")
    assert event.target == f"users/{user.id}"


async def test_the_chain_is_verified_over_the_wire(auth: Any) -> None:
    await auth.create_user("vera", roles=["viewer"])
    await wait_for(auth, action="espalier.auth.v1.UserService/CreateUser")
    log = await log_of(auth)
    whole = await log.VerifyAuditChain(audit_pb2.VerifyAuditChainRequest())
    assert (whole.intact, whole.next) == (True, "")
    assert whole.checked >= 2
    with auth.database.transaction() as session:
        session.execute(text("ALTER TABLE audit_events DISABLE TRIGGER audit_events_are_append_only"))
        session.execute(text("UPDATE audit_events SET actor_name = 'nobody' WHERE sequence = 2"))
    broken = await log.VerifyAuditChain(audit_pb2.VerifyAuditChainRequest(head=whole.head))
    assert (broken.intact, broken.broken_sequence) == (False, 2)


async def test_pages_and_the_export_hold_every_event_once(auth: Any) -> None:
    for number in range(7):
        await auth.create_user(f"user-{number}", roles=["viewer"])
    wanted = {"action": "espalier.auth.v1.UserService/CreateUser"}
    await wait_for(auth, 7, **wanted)
    log, token, seen = await log_of(auth), "", []
    while True:
        page = await log.ListAuditEvents(audit_pb2.ListAuditEventsRequest(page_size=3, page_token=token, **wanted))
        seen += [event.sequence for event in page.events]
        if not (token := page.next_page_token):
            break
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == 7
    exported = [event.sequence async for event in await exporting(auth, **wanted)]
    assert exported == sorted(seen)
    assert await wait_for(auth, action="espalier.auth.v1.AuditService/ExportAuditEvents")


async def exporting(auth: Any, **wanted: Any) -> Any:
    token = (await auth.login()).access_token
    stub = audit_pb2_grpc.AuditServiceStub(auth.channel())
    metadata = (("authorization", f"Bearer {token}"),)
    return stub.ExportAuditEvents(audit_pb2.ExportAuditEventsRequest(**wanted), metadata=metadata)


async def test_an_auditor_reads_the_log_and_a_trainer_does_not(auth: Any) -> None:
    for role in ("auditor", "trainer", "viewer"):
        await auth.create_user(role, roles=[role])
    token = (await auth.login("auditor", "a quiet green lamp")).access_token
    log = audit_pb2_grpc.AuditServiceStub(auth.channel(token))
    await log.ListAuditEvents(audit_pb2.ListAuditEventsRequest())
    assert (await log.VerifyAuditChain(audit_pb2.VerifyAuditChainRequest())).intact
    for role in ("trainer", "viewer"):
        token = (await auth.login(role, "a quiet green lamp")).access_token
        log = audit_pb2_grpc.AuditServiceStub(auth.channel(token))
        for call, request in (
            (log.ListAuditEvents, audit_pb2.ListAuditEventsRequest()),
            (log.VerifyAuditChain, audit_pb2.VerifyAuditChainRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_search_with_sql_in_it_finds_nothing_and_breaks_nothing(auth: Any) -> None:
    for query in ("'; DROP TABLE audit_events; --", "%' OR 1=1 --", "{a,b}", '"', "\\", "\U0010ffff"):
        assert not await wait_for(auth, 0, query=query)
        assert not await wait_for(auth, 0, target=query)
    with auth.database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(AuditEntry)) is not None
        assert repository.find_head(session).sequence >= 0


def test_every_rpc_that_changes_something_is_told() -> None:
    from espalier_common.audit.rule import rule_of

    quiet = {
        f"{method.containing_service.full_name}/{method.name}"
        for service in all_services()
        for method in service.methods
        if method.GetOptions().HasExtension(_http()) and not rule_of(method).tells and _verb(method) != "get"
    }
    assert quiet == {
        "espalier.auth.v1.AuthService/Refresh",
        "espalier.auth.v1.OidcService/StartOidcLogin",
        "espalier.training_orchestrator.v1.RunService/PlanRun",
    }


def _http() -> Any:
    from google.api import annotations_pb2

    return annotations_pb2.http


def _verb(method: Any) -> str | None:
    verb: str | None = method.GetOptions().Extensions[_http()].WhichOneof("pattern")
    return verb
