"""The other side of the wire: an identity provider's discovery document, keys, token endpoint and userinfo.

All answers are small, come within seconds and from no other address than the one asked; otherwise they count as none.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

import orjson

from espalier_auth.oidc.errors import (
    LogoutRefused,
    ProviderRefused,
    ProviderUnavailable,
    ProviderUntrusted,
    SignInTooWeak,
)
from espalier_auth.oidc.id_token import Expectation, verify_id_token
from espalier_auth.oidc.login_state import PendingLogin
from espalier_auth.oidc.logout_token import Logout, require_type, verify_logout_token
from espalier_auth.oidc.providers import ProviderSettings, is_safe_url
from espalier_auth.oidc.signed_token import Claims, TokenError, Trust, UnknownKey
from espalier_common.telemetry import get_logger

if TYPE_CHECKING:
    import httpx

ANSWER_SECONDS = 10.0
MAX_ANSWER_BYTES = 256 << 10
METADATA_SECONDS = 3600.0
# A token with a made-up key must not make us ask for the keys again and again.
KEYS_PAUSE = 10.0
# While a provider is away, one caller finds out and the others are told the same, instead of all waiting in a row.
FAILURE_SECONDS = 3.0

_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")

Keys = Sequence[Mapping[str, Any]]
_Checked = TypeVar("_Checked")

_log = get_logger(__name__)


@dataclass(frozen=True)
class _Known:
    """What the provider said about itself, and when."""

    metadata: Mapping[str, Any]
    keys: Keys
    read_at: float = field(default_factory=time.monotonic)


class Provider:
    """One identity provider. Connects at its first use; `close` ends the connections."""

    def __init__(self, settings: ProviderSettings, *, redirect_uri: str) -> None:
        self.settings = settings
        self._redirect_uri = redirect_uri
        self._known: _Known | None = None
        self._failure: ProviderUnavailable | ProviderUntrusted | None = None
        self._failed_at = 0.0
        self._lock = asyncio.Lock()
        self._http: httpx.AsyncClient | None = None

    async def authorization_url(self, pending: PendingLogin) -> str:
        """Where the browser goes to sign in."""
        metadata = (await self._know()).metadata
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": pending.challenge,
            "code_challenge_method": "S256",
        }
        if self.settings.acr_values:
            query["acr_values"] = " ".join(self.settings.acr_values)
        endpoint = metadata["authorization_endpoint"]
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    async def check_issuer(self, issuer: str) -> None:
        """Raises ProviderUntrusted when the answer says, or hides, that another provider sent it (RFC 9207)."""
        told = (await self._know()).metadata.get("authorization_response_iss_parameter_supported") is True
        if (issuer or told) and issuer != self.settings.issuer:
            raise ProviderUntrusted(self.settings.title, "the answer is another provider's (iss)")

    async def identify(self, code: str, pending: PendingLogin) -> Claims:
        """Exchanges the code; gives what the provider says of who signed in, by id_token and userinfo."""
        known = await self._know()
        answer = await self._exchange(known, code, pending)
        claims = await self._verify(known, answer.get("id_token"), pending)
        self._require_strength(claims)
        about = await self._read_userinfo(known, answer.get("access_token"), subject=claims["sub"])
        # What is signed for us wins.
        return {**about, **claims}

    async def read_logout(self, token: str) -> Logout:
        """What a logout token says. Raises LogoutRefused, and what asking the provider for its keys raises."""
        try:
            require_type(token)
            known = await self._know()
            trust = self._trust(known)
            return await self._with_keys(known, lambda keys: verify_logout_token(token, keys, trust))
        except TokenError as error:
            _log.warning("logout token refused", provider=self.settings.name, cause=str(error))
            raise LogoutRefused(self.settings.title, str(error)) from error

    async def close(self) -> None:
        """Ends the connections."""
        if self._http is not None:
            await self._http.aclose()

    async def _exchange(self, known: _Known, code: str, pending: PendingLogin) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": pending.verifier,
        }
        secret = self.settings.client_secret.get_secret_value()
        methods = known.metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        chosen = self.settings.client_authentication
        credentials = None
        if secret and (chosen == "client_secret_basic" or (not chosen and "client_secret_basic" in methods)):
            credentials = (_form_encoded(self.settings.client_id), _form_encoded(secret))
        else:
            form |= {"client_id": self.settings.client_id} | ({"client_secret": secret} if secret else {})
        status, answer = await self._ask("POST", known.metadata["token_endpoint"], form=form, credentials=credentials)
        if status != 200:
            error = str(answer.get("error", f"status {status}"))
            _log.warning("identity provider refused a code", provider=self.settings.name, error=error, status=status)
            raise ProviderRefused(self.settings.title, error, str(answer.get("error_description", "")))
        return answer

    async def _verify(self, known: _Known, token: object, pending: PendingLogin) -> Claims:
        if not isinstance(token, str):
            raise ProviderUntrusted(self.settings.title, "its answer has no id_token")
        trust = self._trust(known)
        expected = Expectation(
            issuer=trust.issuer, client_id=trust.client_id, algorithms=trust.algorithms, nonce=pending.nonce
        )
        try:
            return await self._with_keys(known, lambda keys: verify_id_token(token, keys, expected))
        except TokenError as error:
            _log.warning("id_token refused", provider=self.settings.name, cause=str(error))
            raise ProviderUntrusted(self.settings.title, str(error)) from error

    def _trust(self, known: _Known) -> Trust:
        announced = known.metadata.get("id_token_signing_alg_values_supported", ["RS256"])
        return Trust(
            issuer=self.settings.issuer,
            client_id=self.settings.client_id,
            algorithms=frozenset(self.settings.algorithms).intersection(announced),
        )

    async def _with_keys(self, known: _Known, check: Callable[[Keys], _Checked]) -> _Checked:
        try:
            return check(known.keys)
        except UnknownKey:
            # It may have changed its keys since we asked.
            return check((await self._know(newer_than=KEYS_PAUSE)).keys)

    def _require_strength(self, claims: Claims) -> None:
        """What was asked for is a wish to the provider (OpenID Connect Core 3.1.2.1), so what it made of it is read."""
        said, wanted = claims.get("acr"), self.settings.acr_values
        if wanted and said not in wanted:
            _log.warning("sign-in at a provider was too weak", provider=self.settings.name, acr=str(said)[:255])
            raise SignInTooWeak(self.settings.title, said if isinstance(said, str) else "", wanted)

    async def _read_userinfo(self, known: _Known, access_token: object, *, subject: str) -> Claims:
        endpoint = known.metadata.get("userinfo_endpoint")
        if not endpoint or not isinstance(access_token, str):
            return {}
        status, answer = await self._ask("GET", endpoint, token=access_token)
        if status != 200:
            _log.warning("identity provider gave no userinfo", provider=self.settings.name, status=status)
            return {}
        if answer.get("sub") != subject:
            raise ProviderUntrusted(self.settings.title, "its userinfo is about somebody else")
        return answer

    async def _know(self, *, newer_than: float = METADATA_SECONDS) -> _Known:
        """Metadata and keys, at most so many seconds old."""
        async with self._lock:
            if self._known is None or time.monotonic() - self._known.read_at > newer_than:
                self._known = await self._discover_unless_failed()
            return self._known

    async def _discover_unless_failed(self) -> _Known:
        if self._failure is not None and time.monotonic() - self._failed_at < FAILURE_SECONDS:
            raise self._failure.with_traceback(None)
        try:
            return await self._discover()
        except (ProviderUnavailable, ProviderUntrusted) as error:
            self._failure, self._failed_at = error, time.monotonic()
            raise

    async def _discover(self) -> _Known:
        address = f"{self.settings.issuer.rstrip('/')}/.well-known/openid-configuration"
        status, metadata = await self._ask("GET", address)
        if status != 200:
            raise ProviderUnavailable(self.settings.title, f"{address} answers with status {status}")
        if metadata.get("issuer") != self.settings.issuer:
            raise ProviderUntrusted(self.settings.title, "its discovery document names another issuer")
        for name in (*_ENDPOINTS, "userinfo_endpoint"):
            address = metadata.get(name, "")
            if (address or name in _ENDPOINTS) and not (isinstance(address, str) and is_safe_url(address)):
                raise ProviderUntrusted(self.settings.title, f"its {name} is no https:// address")
        status, jwks = await self._ask("GET", metadata["jwks_uri"])
        keys = jwks.get("keys")
        if status != 200 or not isinstance(keys, list):
            raise ProviderUnavailable(self.settings.title, "it publishes no keys")
        return _Known(metadata, [key for key in keys if isinstance(key, dict)])

    async def _ask(
        self,
        method: str,
        address: str,
        *,
        form: Mapping[str, str] | None = None,
        credentials: tuple[str, str] | None = None,
        token: str = "",
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer. Raises ProviderUnavailable when there is none."""
        import httpx

        http = self._open()
        headers = {"accept": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
        request = http.build_request(method, address, data=form, headers=headers)
        authentication = httpx.BasicAuth(*credentials) if credentials else None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await http.send(request, auth=authentication, stream=True)
                try:
                    body = await self._read(answer)
                finally:
                    await answer.aclose()
        except (TimeoutError, httpx.HTTPError, OSError) as error:
            _log.warning("identity provider does not answer", provider=self.settings.name, error=repr(error))
            raise ProviderUnavailable(self.settings.title, "it does not answer") from error
        return answer.status_code, _object(body)

    async def _read(self, answer: "httpx.Response") -> bytes:
        body = bytearray()
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > MAX_ANSWER_BYTES:
                raise ProviderUnavailable(self.settings.title, "its answer is too large")
        return bytes(body)

    def _open(self) -> "httpx.AsyncClient":
        if self._http is None:
            import httpx

            # A proxy of the environment is for other machines.
            local = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
            self._http = httpx.AsyncClient(timeout=5.0, follow_redirects=False, mounts=local)
        return self._http


def _object(body: bytes) -> dict[str, Any]:
    """The JSON object of an answer; an empty one for anything else, which then lacks what is needed."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _form_encoded(text: str) -> str:
    """As RFC 6749 2.3.1 wants it before it goes into HTTP Basic."""
    return urlencode({"": text})[1:]
