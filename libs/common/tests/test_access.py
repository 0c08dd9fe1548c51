"""API keys at a service, each permission's own scope, and the data of one's groups."""

import uuid
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from espalier_common import api_keys, group_peers
from espalier_common.api_keys import InvalidApiKey
from espalier_common.db import TYPES, Database, Id, new_id, new_metadata
from espalier_common.errors import Unavailable
from espalier_common.group_peers import GroupPeers
from espalier_common.identity import Principal, Scope, TokenVerifier, current_principal
from espalier_common.revocations import Revocations
from espalier_common.rpc.status import from_rpc_error
from espalier_common.testing.rpc import SigningKey, start_rpc_server
from espalier_common.visibility import reaches, visible

KEY = "esp_0123456789abcdef0123456789abcdef_secret"


class Base(DeclarativeBase):
    metadata = new_metadata()
    type_annotation_map = TYPES


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[Id] = mapped_column(primary_key=True, default=new_id)
    owner_id: Mapped[Id]


class Exchange:
    """Auth as the verifier sees it: keys, what they are worth, and how often somebody asked."""

    def __init__(self) -> None:
        self.key = SigningKey()
        self.known = {KEY: ["training.runs.list"]}
        self.asked: list[str] = []
        self.away = False

    def __call__(self, key: str) -> tuple[str, float]:
        self.asked.append(key)
        if self.away:
            raise Unavailable("Auth is away.")
        if key not in self.known:
            raise InvalidApiKey
        return self.key.token(permissions=self.known[key], subject="mia"), 5.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
def verifier(exchange: Exchange) -> TokenVerifier:
    return TokenVerifier(exchange.key.jwks, exchange=exchange)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(api_keys, "time", clock)
    monkeypatch.setattr(group_peers, "time", clock)
    return clock


def test_a_key_is_exchanged_once_and_kept_for_seconds(
    exchange: Exchange, verifier: TokenVerifier, clock: Clock
) -> None:
    assert verifier.cached(KEY) is None
    assert verifier.verify(KEY).permissions == {"training.runs.list"}
    clock.now += 4.9
    known = verifier.cached(KEY)

    assert known is not None
    assert known.subject == "mia"
    assert len(exchange.asked) == 1


def test_a_revoked_key_ends_within_five_seconds(exchange: Exchange, verifier: TokenVerifier, clock: Clock) -> None:
    verifier.verify(KEY)
    del exchange.known[KEY]
    clock.now += 5.0

    assert verifier.cached(KEY) is None
    with pytest.raises(InvalidApiKey):
        verifier.verify(KEY)


def test_an_unknown_key_is_asked_about_once_in_a_while(
    exchange: Exchange, verifier: TokenVerifier, clock: Clock
) -> None:
    for _ in range(5):
        with pytest.raises(InvalidApiKey):
            verifier.verify("esp_guess")
    assert len(exchange.asked) == 1

    clock.now += 2.1
    with pytest.raises(InvalidApiKey):
        verifier.verify("esp_guess")
    assert len(exchange.asked) == 2


def test_guessed_keys_do_not_fill_the_memory(exchange: Exchange, verifier: TokenVerifier) -> None:
    for number in range(api_keys.MAX_REFUSED + 50):
        with pytest.raises(InvalidApiKey):
            verifier.verify(f"esp_{number}")
    verdicts: Any = verifier._api_keys

    assert len(verdicts._refused) == api_keys.MAX_REFUSED
    with pytest.raises(InvalidApiKey):
        verifier.verify("esp_" + "x" * 600)
    assert max(map(len, exchange.asked)) < 600


def test_an_absent_auth_is_no_verdict(exchange: Exchange, verifier: TokenVerifier) -> None:
    exchange.away = True
    with pytest.raises(Unavailable):
        verifier.verify(KEY)
    exchange.away = False

    assert verifier.verify(KEY).subject == "mia"


def test_each_permission_reaches_as_far_as_its_token_says(exchange: Exchange) -> None:
    verifier = TokenVerifier(exchange.key.jwks)
    token = exchange.key.sign(
        _claims(exchange, permissions=["training.*", "models.models.list"], scope="all")
        | {"narrower": {"own": ["training.runs.*"], "group": ["training.datasets.list"]}}
    )

    mia = verifier.verify(token)

    assert mia.using("training.runs.stop").scope == "own"
    assert mia.using("training.datasets.list").scope == "group"
    assert mia.using("models.models.list").scope == "all"
    assert mia.using("training.runs.stop").using("models.models.list").scope == "all"


@pytest.fixture(scope="module")
def database(database_url: str) -> Any:
    database = Database(database_url)
    Base.metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.mark.parametrize(
    ("scope", "peers", "seen"),
    [
        ("own", ["ben"], ["mia"]),
        ("group", ["ben", "mia"], ["ben", "mia"]),
        ("group", [], ["mia"]),
        ("all", [], ["ben", "eve", "mia"]),
    ],
)
def test_a_caller_sees_what_its_groups_own(
    database: Database, scope: Scope, peers: Sequence[str], seen: Sequence[str]
) -> None:
    ids = {name: str(uuid.uuid5(uuid.NAMESPACE_URL, name)) for name in ("mia", "ben", "eve")}
    mia = Principal(ids["mia"], "mia", "user", (), frozenset(), scope, peers=frozenset(ids[name] for name in peers))
    with database.transaction() as session:
        session.query(Thing).delete()
        session.add_all(Thing(owner_id=owner) for owner in ids.values())
        session.flush()
        found = session.scalars(select(Thing.owner_id).where(visible(Thing.owner_id, mia))).all()

    assert sorted(found) == sorted(ids[name] for name in seen)
    assert [name for name in sorted(ids) if reaches(ids[name], mia)] == list(seen)


def test_peers_are_asked_for_once_in_five_seconds(clock: Clock) -> None:
    asked: list[str] = []

    def fetch(principal: Principal) -> list[str]:
        asked.append(principal.subject)
        return [f"peer{len(asked)}"]

    peers = GroupPeers(fetch)
    mia = Principal("mia", "mia", "user", (), frozenset(), "group")

    assert peers.complete(mia).peers == peers.complete(mia).peers == {"peer1"}
    clock.now += 5.0
    assert peers.cached(mia) is None
    assert peers.complete(mia).peers == {"peer2"}
    assert asked == ["mia", "mia"]


class Servicer:
    """Tells the scope and the peers with which its handler runs."""

    def __init__(self, contract: Any) -> None:
        self._contract = contract

    def Guarded(self, request: Any, context: object) -> Any:
        caller = current_principal()
        return self._contract.Reply(text=f"{caller.scope} {','.join(sorted(caller.peers))}")

    def Known(self, request: Any, context: object) -> Any:
        return self._contract.Reply(text=current_principal().subject)

    Open = Slow = Known

    async def Stream(self, request: Any, context: object) -> Any:
        yield self._contract.Reply()

    Watch = Stream


async def test_a_handler_runs_with_the_scope_of_its_own_permission(contract: Any) -> None:
    server = await start_rpc_server(
        [(contract.add, Servicer(contract), contract.service)], peers=GroupPeers(lambda _: ["ben", "mia"])
    )
    ask = contract.Ask(name="abc")
    try:
        told = []
        for narrower in ({}, {"own": ["tests.things.read"]}, {"group": ["tests.things.*"]}):
            claims = _claims(server, permissions=["tests.*"], scope="all") | {"narrower": narrower}
            metadata = (("authorization", f"Bearer {server.key.sign(claims)}"),)
            told.append((await contract.call(server.channel(), "Guarded")(ask, metadata=metadata)).text)
        assert told == ["all ", "own ", "group ben,mia"]
    finally:
        await server.close()


async def test_an_api_key_does_nothing_that_concerns_its_owners_account(contract: Any) -> None:
    server = await start_rpc_server([(contract.add, Servicer(contract), contract.service)])
    claims = _claims(server, permissions=["tests.*"], scope="own") | {"api_key": "k"}
    metadata = (("authorization", f"Bearer {server.key.sign(claims)}"),)
    ask = contract.Ask(name="abc")
    try:
        assert await contract.call(server.channel(), "Guarded")(ask, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await contract.call(server.channel(), "Known")(ask, metadata=metadata)
        assert from_rpc_error(refused.value).reason == "NOT_BY_API_KEY"
    finally:
        await server.close()


async def test_nobody_changes_anything_while_auth_has_not_answered_for_long(contract: Any) -> None:
    server = await start_rpc_server([(contract.add, Servicer(contract), contract.service)])
    call = contract.call(server.channel(), "Guarded")
    metadata = [("authorization", f"Bearer {server.key.token(permissions=['tests.*'], subject='mia')}")]
    try:
        server.verifier.revocations = Revocations(dict, grace=3600)
        assert await call(contract.Ask(name="abc"), metadata=metadata)
        server.verifier.revocations = Revocations(dict, grace=-1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(contract.Ask(name="abc"), metadata=metadata)
        assert isinstance(from_rpc_error(refused.value), Unavailable)
    finally:
        await server.close()


def _claims(signer: Any, *, permissions: list[str], scope: str) -> dict[str, Any]:
    """Those of a token that the key of `signer` gives, to be changed and signed again."""
    import jwt

    token = signer.key.token(permissions=permissions, scope=scope, subject="mia")
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims
