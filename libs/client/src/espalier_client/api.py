"""The platform's public API over HTTP, as any other client would use it: JSON, Server-Sent Events, file uploads."""

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from espalier_client.credentials import CredentialStore, Tokens
from espalier_client.errors import ClientError, Unauthenticated, Unavailable, from_problem
from espalier_client.sse import ServerEvent, read_events

# A token is renewed this many seconds before its end, so that no call meets an expired one.
RENEW_BEFORE = 30.0
CHUNK_BYTES = 1 << 20
# A stream is silent for 15 s at most: the gateway sends heartbeats.
STREAM_SILENCE = 60.0
STREAM_RETRIES = 8
PAGE = 500

Json = Any


def user_agent() -> str:
    """What the list of one's sessions names this command by, such as "espalier/0.1.0 (Linux)"."""
    system = platform.system()
    return f"espalier/{version('espalier-client')} ({'macOS' if system == 'Darwin' else system or 'unknown'})"


class Api:
    """Calls one server as the user who signed in there. A context manager; not for several threads at once."""

    def __init__(
        self,
        server: str,
        *,
        store: CredentialStore,
        token: str = "",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self._store = store
        self._fixed_token = token
        self._http = httpx.Client(
            base_url=self.server,
            timeout=httpx.Timeout(60.0, connect=5.0),
            headers={"user-agent": user_agent()},
            transport=transport,
        )

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def again(self) -> "Api":
        """A second connection as the same user, for another thread."""
        return Api(self.server, store=self._store, token=self._fixed_token)

    def login(self, username: str, password: str, *, code: str = "") -> Json:
        """Signs in, with a code where there is a second factor, and keeps the tokens.

        Gives the answer, which says whether the password should be changed.
        """
        body = {"username": username, "password": password, **({"code": code} if code else {})}
        answer = self._json(self._send("POST", "/api/v1/auth/login", body=body, authorized=False))
        with self._store.locked():
            self._keep(answer, username)
        return answer

    def logout(self) -> bool:
        """Ends the session. False when there was none."""
        with self._store.locked():
            tokens = self._store.get(self.server)
            if tokens is None:
                return False
            body = {"refresh_token": tokens.refresh_token}
            self._json(self._send("POST", "/api/v1/auth/logout", body=body, authorized=False))
            self._store.remove(self.server)
        return True

    def renew(self) -> None:
        """Takes the next pair of tokens now, for what the session may do from now on."""
        self._renew()

    def call(self, method: str, path: str, body: Json = None, *, query: Mapping[str, Any] | None = None) -> Json:
        """One call. Raises the ClientError that the answer tells of."""
        return self._json(self._send(method, path, body=body, query=query))

    def get(self, path: str, **query: Any) -> Json:
        """A GET with its query; None values are left out."""
        return self.call("GET", path, query={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Json) -> Json:
        """A POST with its body."""
        return self.call("POST", path, body)

    def all(self, path: str, key: str, *, limit: int | None = None, **query: Any) -> Iterator[Json]:
        """The items of a list over all its pages, or the first `limit` of them."""
        token, left = "", limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self.get(path, page_size=size, page_token=token or None, **query)
            yield from page[key]
            token = page["next_page_token"]
            left = None if left is None else left - len(page[key])
            if not token:
                return

    def events(self, path: str, **query: Any) -> Iterator[Json]:
        """The data of a stream that can be resumed: after a cut it goes on behind the last event seen."""
        last, failures = "", 0
        while True:
            try:
                for event in self._stream("GET", path, query=query, last_event_id=last):
                    last, failures = event.id or last, 0
                    yield json.loads(event.data)
            except Unavailable:
                failures += 1
                if failures > STREAM_RETRIES:
                    raise
                time.sleep(min(0.25 * 2**failures, 5.0))
            else:
                return

    def stream(self, path: str, body: Json) -> Iterator[Json]:
        """The data of a stream that a POST begins."""
        for event in self._stream("POST", path, body=body):
            yield json.loads(event.data)

    def download(self, path: str, **query: Any) -> Iterator[bytes]:
        """A file in pieces. Raises Unavailable when it breaks off: what came is not whole then."""
        self._renew_if_due()
        timeout = httpx.Timeout(STREAM_SILENCE, connect=5.0)
        try:
            with self._http.stream("GET", path, params=query, headers=self._authorization(), timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._error(answer)
                yield from answer.iter_bytes(CHUNK_BYTES)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def upload(self, path: Path, *, advance: Callable[[int], None]) -> str:
        """Uploads a file without holding it in memory. `advance` hears the bytes of each piece. Gives the upload id."""

        def pieces() -> Iterator[bytes]:
            with path.open("rb") as file:
                while piece := file.read(CHUNK_BYTES):
                    yield piece
                    advance(len(piece))

        self._renew_if_due()
        headers = {**self._authorization(), "content-type": "application/octet-stream"}
        headers["content-length"] = str(path.stat().st_size)
        answer = self._guarded(
            lambda: self._http.post("/api/v1/files", params={"filename": path.name}, content=pieces(), headers=headers)
        )
        return str(self._json(answer)["upload_id"])

    def _send(
        self,
        method: str,
        path: str,
        *,
        body: Json = None,
        query: Mapping[str, Any] | None = None,
        authorized: bool = True,
    ) -> httpx.Response:
        def send() -> httpx.Response:
            headers = self._authorization() if authorized else {}
            return self._http.request(method, path, json=body, params=query, headers=headers)

        if authorized:
            self._renew_if_due()
        answer = self._guarded(send)
        if answer.status_code == 401 and authorized and self._renew():
            answer = self._guarded(send)
        return answer

    def _stream(
        self,
        method: str,
        path: str,
        *,
        body: Json = None,
        query: Mapping[str, Any] | None = None,
        last_event_id: str = "",
    ) -> Iterator[ServerEvent]:
        self._renew_if_due()
        headers = {**self._authorization(), "accept": "text/event-stream"}
        if last_event_id:
            headers["last-event-id"] = last_event_id
        timeout = httpx.Timeout(STREAM_SILENCE, connect=5.0)
        try:
            with self._http.stream(method, path, json=body, params=query, headers=headers, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._error(answer)
                for event in read_events(answer.iter_lines()):
                    if event.event == "error":
                        problem = json.loads(event.data)
                        raise from_problem(int(problem.get("status", 500)), problem)
                    if event.event == "message":
                        yield event
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _authorization(self) -> dict[str, str]:
        token = self._fixed_token
        if not token and (tokens := self._store.get(self.server)):
            token = tokens.access_token
        return {"authorization": f"Bearer {token}"} if token else {}

    def _renew_if_due(self) -> None:
        tokens = None if self._fixed_token else self._store.get(self.server)
        if tokens is not None and tokens.expires_at - time.time() < RENEW_BEFORE:
            self._renew()

    def _renew(self) -> bool:
        """The next pair of tokens, unless another command got it meanwhile. False when there is no session to renew."""
        before = self._store.get(self.server)
        if self._fixed_token or before is None:
            return False
        with self._store.locked():
            now = self._store.get(self.server)
            if now is None or now != before:
                return now is not None
            body = {"refresh_token": now.refresh_token}
            answer = self._send("POST", "/api/v1/auth/refresh", body=body, authorized=False)
            if answer.is_error:
                if answer.status_code == 401:
                    self._store.remove(self.server)
                return False
            self._keep(self._json(answer), now.username)
        return True

    def _keep(self, answer: Json, username: str) -> None:
        tokens = Tokens(
            access_token=answer["access_token"],
            refresh_token=answer["refresh_token"],
            expires_at=time.time() + float(answer["expires_in"]),
            username=username,
        )
        self._store.put(self.server, tokens)

    def _guarded(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            return send()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> Unavailable:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return Unavailable(
                f"{self.server} does not answer. Is the platform running? `espalier up` starts it on this machine; "
                "--server or ESPALIER_SERVER names another one."
            )
        return Unavailable(f"The connection to {self.server} broke off: {error or type(error).__name__}. Try again.")

    def _json(self, answer: httpx.Response) -> Json:
        if answer.is_error:
            raise self._error(answer)
        try:
            return answer.json() if answer.content else None
        except ValueError as error:
            raise ClientError(f"{self.server} answered with something that is no JSON: is it an Espalier?") from error

    def _error(self, answer: httpx.Response) -> ClientError:
        try:
            problem = answer.json()
        except ValueError:
            problem = {}
        error = from_problem(
            answer.status_code,
            problem if isinstance(problem, dict) else {},
            request_id=answer.headers.get("x-request-id", ""),
        )
        if not problem and answer.is_client_error:
            error.message = f"{self.server} answered {answer.status_code}, and not as an Espalier would: is it one?"
        anonymous = self._store.get(self.server) is None and not self._fixed_token
        if isinstance(error, Unauthenticated) and anonymous and "/api/v1/auth/" not in answer.request.url.path:
            error.message = f"Nobody is signed in at {self.server}: run `espalier login`."
        return error
