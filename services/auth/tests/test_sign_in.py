"""Signing in, as a person and as a service."""

import asyncio
import hashlib
import statistics
import time
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
from sqlalchemy import select

from espalier.auth.v1 import resources_pb2, service_pb2
from espalier_auth.models import RefreshToken, User
from espalier_common.rpc.status import from_rpc_error


async def test_the_right_password_gives_tokens_that_another_service_accepts(auth: Any) -> None:
    pair = await auth.login()
    principal = await asyncio.to_thread(auth.verifier().verify, pair.access_token)

    assert pair.token_type == "Bearer"
    assert pair.expires_in == 600
    assert (principal.name, principal.kind, principal.roles) == ("admin", "user", ("admin",))
    assert principal.may("training.runs.create")
    assert principal.scope == "all"


async def test_an_access_token_says_all_that_services_check(auth: Any) -> None:
    token = (await auth.login()).access_token
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})

    assert (header["alg"], header["typ"]) == ("EdDSA", "at+jwt")
    assert header["kid"]
    assert set(claims) == {
        "iss", "aud", "sub", "sid", "name", "kind", "roles", "permissions", "scope", "narrower", "jti", "iat", "exp"
    }  # fmt: skip
    assert 599 < claims["exp"] - claims["iat"] <= 600


async def test_unknown_user_wrong_password_and_disabled_user_get_the_same_answer(auth: Any) -> None:
    disabled = await auth.create_user("mia", roles=["viewer"], password="a quiet green lamp")
    update = service_pb2.UpdateUserRequest(user=resources_pb2.User(id=disabled.id, disabled=True))
    update.update_mask.paths.append("disabled")
    await (await auth.admin()).UpdateUser(update)

    answers = {
        await _refusal(auth, "nobody", "a quiet green lamp"),
        await _refusal(auth, "admin", "wrong horse battery"),
        await _refusal(auth, "mia", "a quiet green lamp"),
    }

    assert answers == {("UNAUTHENTICATED", "INVALID_CREDENTIALS", "Username or password is wrong.")}


async def test_an_unknown_user_costs_as_much_time_as_a_wrong_password(auth: Any) -> None:
    async def seconds(username: str) -> float:
        started = time.perf_counter()
        await _refusal(auth, username, "wrong horse battery")
        return time.perf_counter() - started

    await seconds("admin")
    pairs = [(await seconds("admin"), await seconds(f"nobody{index}")) for index in range(15)]
    known, unknown = (statistics.median(column) for column in zip(*pairs, strict=True))

    # A skipped check would make it ten times faster; the bound is wide because the test machine is busy.
    assert 0.6 < unknown / known < 1.67


async def test_the_username_is_taken_in_any_case(auth: Any) -> None:
    assert (await auth.login("Admin")).access_token


async def test_the_refresh_token_is_nowhere_in_the_database(auth: Any) -> None:
    pair = await auth.login()

    with auth.database.transaction() as session:
        stored = session.scalars(select(RefreshToken)).one()
    assert bytes(stored.token_hash) == hashlib.sha256(pair.refresh_token.encode()).digest()


async def test_the_last_login_is_remembered(auth: Any) -> None:
    user = (await auth.users((await auth.login()).access_token).GetMe(service_pb2.GetMeRequest())).user

    assert abs(user.last_login_time.ToSeconds() - time.time()) < 600


async def test_a_hash_of_other_parameters_is_replaced_at_the_next_login(auth: Any) -> None:
    from argon2 import PasswordHasher

    weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash("correct horse battery")
    with auth.database.transaction() as session:
        session.scalars(select(User)).one().password_hash = weak

    await auth.login()

    with auth.database.transaction() as session:
        assert "m=19456,t=2,p=1" in session.scalars(select(User)).one().password_hash
    await auth.login()


async def test_many_sign_ins_at_once_leave_other_calls_quick(auth: Any) -> None:
    stub = auth.sign_in()
    began = time.perf_counter()
    logins = [asyncio.create_task(auth.login()) for _ in range(40)]
    await asyncio.sleep(0)
    waits = []
    while not all(login.done() for login in logins):
        started = time.perf_counter()
        await stub.GetJwks(service_pb2.GetJwksRequest())
        waits.append(time.perf_counter() - started)
        await asyncio.sleep(0.01)

    took = time.perf_counter() - began
    assert len({(await login).refresh_token for login in logins}) == 40
    # One that waited for its turn among them would wait for about half of them.
    assert statistics.median(waits) < max(0.25, took / 8)


async def test_a_service_gets_a_token_of_its_own_against_its_secret(start_auth: Any) -> None:
    digest = hashlib.sha256(b"the secret of chat").hexdigest()
    auth = await start_auth(service_secret_hashes={"chat": digest})
    request = service_pb2.IssueServiceTokenRequest(service="chat", secret="the secret of chat")

    token = await auth.sign_in().IssueServiceToken(request)

    principal = await asyncio.to_thread(auth.verifier().verify, token.access_token)
    assert (principal.subject, principal.kind) == ("chat", "service")
    assert principal.permissions == {"auth.revocations.list", "auth.usage.reserve", "models.deployments.use"}


@pytest.mark.parametrize(("service", "secret"), [("chat", "wrong"), ("nobody", "the secret of chat"), ("eval", "x")])
async def test_a_wrong_secret_and_an_unknown_service_get_the_same_answer(
    start_auth: Any, service: str, secret: str
) -> None:
    auth = await start_auth(service_secret_hashes={"chat": hashlib.sha256(b"the secret of chat").hexdigest()})

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await auth.sign_in().IssueServiceToken(service_pb2.IssueServiceTokenRequest(service=service, secret=secret))

    assert from_rpc_error(refused.value).reason == "INVALID_CREDENTIALS"


async def test_a_service_has_no_account_of_its_own(start_auth: Any) -> None:
    auth = await start_auth(service_secret_hashes={"eval": hashlib.sha256(b"a secret").hexdigest()})
    request = service_pb2.IssueServiceTokenRequest(service="eval", secret="a secret")
    token = (await auth.sign_in().IssueServiceToken(request)).access_token

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await auth.users(token).GetMe(service_pb2.GetMeRequest())

    assert from_rpc_error(refused.value).reason == "FOR_PEOPLE_ONLY"


async def _refusal(auth: Any, username: str, password: str) -> tuple[str, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await auth.login(username, password)
    error = from_rpc_error(refused.value)
    return refused.value.code().name, error.reason, error.message
