"""From where a call comes: address and user agent of the program at the far end.

A service sees the socket of whoever calls it, which for most calls is the gateway. The gateway therefore says whom it
serves, and shows its own service token beside it; without that token what is said counts for nothing, and the address
is that of the socket. So nobody who reaches a service directly can write another's address into a session or the audit
log, or guess passwords under ever new addresses.
"""

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote

from espalier_common.errors import Unauthenticated, Unavailable
from espalier_common.rpc.context import header

if TYPE_CHECKING:
    from espalier_common.identity import TokenVerifier

ADDRESS_HEADER = "x-espalier-client-address"
AGENT_HEADER = "x-espalier-client-agent"
GATEWAY_HEADER = "x-espalier-gateway"
GATEWAY = "gateway"
MAX_AGENT_LENGTH = 256

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Client:
    """The far end of a call; both empty when unknown."""

    address: str = ""
    agent: str = ""


_client: ContextVar[Client | None] = ContextVar("espalier_client", default=None)


def current_client() -> Client:
    """The client of the call being served; an empty one outside a call."""
    return _client.get() or Client()


def set_client(client: Client) -> None:
    """Sets the client for the rest of the running task; for the server's edge and for tests."""
    _client.set(client)


def told_by_gateway(client: Client, *, token: str) -> list[tuple[str, str]]:
    """What the gateway adds to a call; nothing while it has no token."""
    if not token:
        return []
    return [(ADDRESS_HEADER, client.address), (AGENT_HEADER, client.agent), (GATEWAY_HEADER, token)]


def client_of(metadata: Metadata, *, peer: str, verifier: "TokenVerifier") -> Client:
    """The client of a call. May fetch keys for the first token of a gateway, so it may block."""
    token = header(metadata, GATEWAY_HEADER)
    if token and _is_gateway(token, verifier):
        return Client(_address(header(metadata, ADDRESS_HEADER) or ""), printable(header(metadata, AGENT_HEADER) or ""))
    return Client(_address_of_peer(peer), printable(header(metadata, "user-agent") or ""))


def is_quick(metadata: Metadata, verifier: "TokenVerifier") -> bool:
    """Whether `client_of` will not block."""
    token = header(metadata, GATEWAY_HEADER)
    return not token or verifier.cached(token) is not None


def printable(agent: str) -> str:
    """A user agent that is harmless in metadata, logs and tables."""
    if agent.isascii() and agent.isprintable():
        return agent[:MAX_AGENT_LENGTH]
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in agent)[:MAX_AGENT_LENGTH]


def _is_gateway(token: str, verifier: "TokenVerifier") -> bool:
    try:
        principal = verifier.verify(token)
    except (Unauthenticated, Unavailable):
        return False
    return (principal.kind, principal.subject) == ("service", GATEWAY)


def _address_of_peer(peer: str) -> str:
    """ "127.0.0.1" of gRPC's "ipv4:127.0.0.1:4711", "::1" of "ipv6:[::1]:4711"."""
    _, _, rest = unquote(peer).partition(":")
    return _address(rest.rpartition(":")[0].strip("[]"))


@lru_cache(maxsize=1024)
def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return ""
