"""Audit events by HTTP: `{"events": […]}`, signed as Standard Webhooks (https://www.standardwebhooks.com) says."""

import base64
import hashlib
import hmac
import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote

from espalier_auth.audit.destinations import Outgoing, Undelivered

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 10.0


class Webhook:
    """Each batch is one POST; any 2xx confirms it."""

    def __init__(self, parts: SplitResult, *, context: ssl.SSLContext | None, signing_key: bytes) -> None:
        # Who signs in at the receiver by the address does so by a header alone: addresses are logged by many.
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        self._user = (unquote(parts.username), unquote(parts.password or "")) if parts.username is not None else None
        self._context = context
        self._key = signing_key
        self._http: httpx.Client | None = None

    def send(self, events: Sequence[Outgoing]) -> None:
        import httpx

        body = b'{"events":[' + b",".join(event.json for event in events) + b"]}"
        id = f"audit-{events[0].sequence}-{events[-1].sequence}"
        headers = {"content-type": "application/json", "user-agent": "espalier", **sign(self._key, id=id, body=body)}
        try:
            with self._open().stream("POST", self._url, content=body, headers=headers) as answer:
                status = answer.status_code  # what else it says, however long, is not read
        except (httpx.HTTPError, OSError) as error:
            raise Undelivered(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise Undelivered(f"it answered with status {status}")

    def _open(self) -> "httpx.Client":
        if self._http is None:
            import httpx

            # A proxy of the environment is for other machines.
            local = {f"all://{host}": None for host in ("127.0.0.1", "localhost", "[::1]")}
            verify = self._context if self._context is not None else True
            timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
            self._http = httpx.Client(auth=self._user, timeout=timeout, verify=verify, mounts=local)
        return self._http


def sign(key: bytes, *, id: str, body: bytes, now: float | None = None) -> dict[str, str]:
    """The headers that prove who sent the body and when."""
    moment = str(int(time.time() if now is None else now))
    digest = hmac.new(key, f"{id}.{moment}.".encode() + body, hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    return {"webhook-id": id, "webhook-timestamp": moment, "webhook-signature": f"v1,{signature}"}
