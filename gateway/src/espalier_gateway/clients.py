"""Whom the gateway serves: address and user agent, as the services are told them.

The address is that of the socket. Only where the socket is that of a proxy in ESPALIER_TRUSTED_PROXIES does
X-Forwarded-For count, read from its end: the last address that no trusted proxy has is the one that the outermost of
them saw. Whatever stands before it, the client may have made up.
"""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from starlette.requests import Request

from espalier_common.identity import ServiceIdentity
from espalier_common.rpc.client import Client, printable, told_by_gateway
from espalier_gateway.settings import GatewaySettings

MAX_HOPS = 20


class Clients:
    """Reads the client of a request, and vouches for it with the gateway's own token."""

    def __init__(self, settings: GatewaySettings, identity: ServiceIdentity | None) -> None:
        self._proxies = [ip_network(network) for network in settings.trusted_proxies]
        self._identity = identity

    def metadata(self, request: Request) -> list[tuple[str, str]]:
        """What goes along with a call; nothing as long as the gateway has no token of its own."""
        token = self._identity.valid() if self._identity else None
        return told_by_gateway(self.client_of(request), token=token) if token else []

    def is_believed(self) -> bool:
        """Whether the services believe whom they are told; they see the gateway's own address as long as not."""
        return self._identity is None or self._identity.valid() is not None

    def client_of(self, request: Request) -> Client:
        """Address and user agent."""
        socket = request.client.host if request.client else ""
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
        agent = printable(request.headers.get("user-agent", ""))
        return Client(client_address(socket, forwarded, self._proxies), agent)


def client_address(socket: str, forwarded: str, proxies: "list[IPv4Network | IPv6Network]") -> str:
    """The address behind the trusted proxies; the nearest one that can be believed where the header is malformed."""
    address = socket
    for hop in reversed(forwarded.split(",")[-MAX_HOPS:]):
        if not _is_in(address, proxies):
            return address
        try:
            address = str(ip_address(hop.strip()))
        except ValueError:
            return address
    return address


def _is_in(address: str, networks: "list[IPv4Network | IPv6Network]") -> bool:
    if not networks:
        return False
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
