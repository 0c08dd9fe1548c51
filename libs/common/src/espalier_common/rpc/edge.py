"""What every call passes before and after its handler, in this order:

request id → log and metrics → deadline → identity → permission → validation → handler → error mapping → audit
"""

import asyncio
import contextvars
import inspect
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.api import annotations_pb2  # type: ignore[import-untyped]
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from espalier_common.audit.rule import AuditRule, rule_of
from espalier_common.enrolment import require_enrolled
from espalier_common.errors import (
    EspalierError,
    Internal,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from espalier_common.group_peers import GroupPeers
from espalier_common.identity import Principal, Revoked, TokenVerifier, find_principal, require_fresh, set_principal
from espalier_common.rpc.client import Client, Metadata, client_of, is_quick, set_client
from espalier_common.rpc.context import AUTHORIZATION_HEADER, REQUEST_ID_HEADER, accept_request_id, header
from espalier_common.rpc.permissions import AUTHENTICATED, PUBLIC, is_before_second_factor, requirement, stream_rule
from espalier_common.rpc.status import DETAILS_KEY, code_of, to_status, translate
from espalier_common.rpc.validation import violations
from espalier_common.settings import SettingsError
from espalier_common.telemetry import get_logger, request_id_var

if TYPE_CHECKING:
    from espalier_common.audit.trail import AuditTrail
    from espalier_common.rpc.metrics import RpcMetrics

MAX_UNARY_SECONDS = 60.0

_log = get_logger(__name__)
_Context = grpc.aio.ServicerContext


@dataclass(frozen=True)
class MethodPlan:
    """What the edge knows of one RPC: name, requirement, whether its stream can be resumed, whether it only reads."""

    name: str
    requires: str
    resumable: bool
    reads: bool
    audit: AuditRule
    before_second_factor: bool = False


class NotByApiKey(PermissionDenied):
    """What concerns an account itself is done by its owner: a key can neither make keys nor change the password."""

    reason = "NOT_BY_API_KEY"

    def __init__(self) -> None:
        super().__init__(AUTHENTICATED, "An API key cannot do this; sign in as its owner.")


def plan_methods(services: Iterable[ServiceDescriptor]) -> dict[str, MethodPlan]:
    """Plans by gRPC path. Raises SettingsError when an RPC does not say what it requires, or takes a stream."""
    plans: dict[str, MethodPlan] = {}
    for service in services:
        for method in service.methods:
            if not (requires := requirement(method)):
                raise SettingsError(
                    f"{method.full_name} does not say what it requires; add (espalier.common.v1.requires) to it."
                )
            if method.client_streaming:
                raise SettingsError(f"{method.full_name} takes a stream; RPCs of the platform take one request.")
            path = f"/{service.full_name}/{method.name}"
            plans[path] = MethodPlan(
                method.full_name,
                requires,
                resumable=bool(stream_rule(method).resume),
                reads=_reads(method),
                audit=rule_of(method),
                before_second_factor=requires == PUBLIC or is_before_second_factor(method),
            )
    return plans


def _reads(method: MethodDescriptor) -> bool:
    """It changes nothing: its route is a GET, or it has none and is named as one that reads."""
    http = method.GetOptions().Extensions[annotations_pb2.http]
    verb = http.WhichOneof("pattern")
    return verb == "get" or (verb is None and method.name.startswith(("Get", "List", "Resolve")))


class Edge(grpc.aio.ServerInterceptor):
    """The interceptor of the platform's own RPCs; health and reflection pass it untouched."""

    def __init__(
        self,
        plans: Mapping[str, MethodPlan],
        *,
        verifier: TokenVerifier,
        pool: Executor,
        draining: asyncio.Event,
        metrics: "RpcMetrics | None" = None,
        trail: "AuditTrail | None" = None,
        peers: GroupPeers | None = None,
    ) -> None:
        self._plans = plans
        self._verifier = verifier
        self._peers = peers
        self._pool = pool
        self._draining = draining
        self._metrics = metrics
        self._trail = trail
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """gRPC asks once per call; each RPC is wrapped once."""
        path: str = handler_call_details.method
        if path in self._wrapped:
            return self._wrapped[path]
        handler = await continuation(handler_call_details)
        plan = self._plans.get(path)
        if handler is None or plan is None:
            return handler
        wrapped = self._wrap(plan, handler)
        self._wrapped[path] = wrapped
        return wrapped

    def _wrap(self, plan: MethodPlan, handler: Any) -> Any:
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(plan, handler.unary_stream),
                request_deserializer=_reader(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(plan, handler.unary_unary),
            request_deserializer=_reader(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _unary(self, plan: MethodPlan, handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        invoke = handler if inspect.iscoroutinefunction(handler) else self._in_pool(handler)

        async def call(received: Any, context: _Context[Any, Any]) -> Any:
            request = received.stand_in if isinstance(received, _Unreadable) else received
            with self._observed(plan, request, context) as observed:
                try:
                    remaining = context.time_remaining()
                    async with asyncio.timeout(min(remaining or MAX_UNARY_SECONDS, MAX_UNARY_SECONDS)):
                        await self._admit(plan, received, context, observed)
                        observed.answer = await invoke(request, context)
                        return observed.answer
                except Exception as error:
                    await self._fail(error, context, observed)

        return call

    def _stream(self, plan: MethodPlan, handler: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
        async def call(received: Any, context: _Context[Any, Any]) -> AsyncIterator[Any]:
            request = received.stand_in if isinstance(received, _Unreadable) else received
            with self._observed(plan, request, context) as observed:
                try:
                    await self._admit(plan, received, context, observed)
                    ends = self._ends(plan)
                    async for message in _until(ends, handler(request, context)) if ends else handler(request, context):
                        yield message
                except Exception as error:
                    await self._fail(error, context, observed)

        return call

    def _ends(self, plan: MethodPlan) -> "list[_End]":
        """What ends a stream besides itself."""
        ends: list[_End] = []
        if plan.resumable:
            restarting = Unavailable("The service is restarting; resume the stream.", retry_after=1)
            ends.append(_End(self._draining.wait, restarting, is_final=False))
        principal, revocations = find_principal(), self._verifier.revocations
        if principal is not None and revocations is not None:
            ends.append(_End(partial(revocations.wait, principal), Revoked(), is_final=True))
        return ends

    def _in_pool(self, handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        def invoke(request: Any, context: Any) -> Awaitable[Any]:
            running = contextvars.copy_context()
            return asyncio.get_running_loop().run_in_executor(self._pool, running.run, handler, request, context)

        return invoke

    async def _admit(self, plan: MethodPlan, request: Any, context: _Context[Any, Any], observed: "_Observed") -> None:
        set_client(await self._client_of(context, observed.metadata))
        principal = await self._identify(plan, observed.metadata)
        set_principal(principal)
        observed.subject = principal.subject if principal else ""
        if principal and not plan.before_second_factor:
            require_enrolled(principal)
        if plan.requires not in {PUBLIC, AUTHENTICATED}:
            if principal is None or not principal.may(plan.requires):
                raise PermissionDenied(plan.requires)
            set_principal(await self._reaching(principal.using(plan.requires)))
        elif plan.requires == AUTHENTICATED and principal and principal.api_key and not plan.reads:
            raise NotByApiKey
        if principal and not plan.reads:
            require_fresh(self._verifier, principal)
        if isinstance(request, _Unreadable):
            raise InvalidArgument("The request is no message of its type; make the client anew from the contract.")
        if found := violations(request):
            first = found[0]
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise InvalidArgument(
                f"The request is not valid: {first.field} {first.description}{more}.", violations=found
            )

    async def _reaching(self, principal: Principal) -> Principal:
        """The caller with those whose data it sees, where that takes its groups."""
        if self._peers is None or principal.scope != "group":
            return principal
        known = self._peers.cached(principal)
        return known if known is not None else await asyncio.to_thread(self._peers.complete, principal)

    async def _client_of(self, context: _Context[Any, Any], metadata: Metadata) -> Client:
        read = partial(client_of, metadata, peer=context.peer() or "", verifier=self._verifier)
        return read() if is_quick(metadata, self._verifier) else await asyncio.to_thread(read)

    async def _identify(self, plan: MethodPlan, metadata: Metadata) -> Principal | None:
        authorization = header(metadata, AUTHORIZATION_HEADER) or ""
        scheme, _, token = authorization.partition(" ")
        public = plan.requires == PUBLIC
        if scheme.lower() != "bearer" or not token:
            if public:
                return None
            raise Unauthenticated("Sign in first: the call carries no access token.")
        if known := self._verifier.cached(token):
            return known
        try:
            return await asyncio.to_thread(self._verifier.verify, token)
        except (Unauthenticated, Unavailable):
            # Who signs in again may still send the old token along.
            if public:
                return None
            raise

    async def _fail(self, error: Exception, context: _Context[Any, Any], observed: "_Observed") -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        answer = translate(error)
        request_id = request_id_var.get()
        if isinstance(answer, Internal):
            _log.exception("call failed", rpc=observed.rpc, subject=observed.subject)
            answer = Internal()  # what a service says of its defect is nothing to our caller either
        observed.error = answer
        trailing: list[tuple[str, str | bytes]] = [
            (DETAILS_KEY, to_status(answer, request_id).SerializeToString()),
            (REQUEST_ID_HEADER, request_id),
        ]
        await context.abort(code_of(answer), answer.message[:1024], tuple(trailing))

    @contextmanager
    def _observed(self, plan: MethodPlan, request: Any, context: _Context[Any, Any]) -> Iterator["_Observed"]:
        # Made anew from gRPC's own memory each time that it is asked for.
        metadata: Metadata = context.invocation_metadata() or ()
        request_id = accept_request_id(header(metadata, REQUEST_ID_HEADER))
        request_id_var.set(request_id)
        context.set_trailing_metadata(((REQUEST_ID_HEADER, request_id),))
        observed = _Observed(plan.name, metadata)
        recording = self._trail.begin(plan.audit, request) if self._trail is not None else None
        started = time.perf_counter()
        try:
            yield observed
        except (asyncio.CancelledError, GeneratorExit):
            observed.cancelled = True
            raise
        finally:
            seconds = time.perf_counter() - started
            observed.log(seconds)
            if self._trail is not None and recording is not None:
                self._trail.end(recording, answer=observed.answer, error=observed.error, cut=observed.cancelled)
            if self._metrics is not None:
                self._metrics.observe(observed.rpc, observed.code, seconds)


class _Observed:
    """One call: with what it came, and what its log line says."""

    def __init__(self, rpc: str, metadata: Metadata) -> None:
        self.rpc = rpc
        self.metadata = metadata
        self.subject = ""
        self.error: EspalierError | None = None
        self.cancelled = False
        self.answer: Any = None

    @property
    def code(self) -> str:
        if self.cancelled:
            return "CANCELLED"
        return self.error.code if self.error else "OK"

    def log(self, seconds: float) -> None:
        fields = {"rpc": self.rpc, "code": self.code, "ms": round(seconds * 1000, 1), "subject": self.subject}
        if self.error is None:
            _log.info("call", **fields)
        else:
            level = _log.warning if self.error.code in {"INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED"} else _log.info
            level("call", **fields, reason=self.error.reason, message=self.error.message)


@dataclass(frozen=True)
class _Unreadable:
    """Bytes that are no message of the type that the RPC takes, and an empty one in its place."""

    stand_in: Any


def _reader(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Reads requests. gRPC itself would answer UNKNOWN, and log a defect for whoever sends nonsense."""

    def deserialize(raw: bytes) -> Any:
        try:
            return read(raw)
        except DecodeError:
            return _Unreadable(read(b""))

    return deserialize


@dataclass(frozen=True)
class _End:
    """When `comes` returns the stream ends with the error."""

    comes: Callable[[], Coroutine[Any, Any, Any]]
    error: EspalierError
    is_final: bool  # not even a message that is there already goes out


async def _until(ends: Sequence[_End], messages: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
    """The messages, until one of the ends comes.

    The server stops: a client that can resume goes on at another replica, or later. The caller's token is taken back:
    he must not read on.
    """
    waiting = {asyncio.ensure_future(end.comes()): end for end in ends}
    pending: asyncio.Future[Any] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(anext(messages))
            await asyncio.wait({pending, *waiting}, return_when=asyncio.FIRST_COMPLETED)
            for future, end in waiting.items():
                if future.done() and (end.is_final or not pending.done()):
                    raise end.error
            try:
                yield pending.result()
            except StopAsyncIteration:
                return
    finally:
        for future in waiting:
            future.cancel()
        if pending is not None and not pending.done():
            pending.cancel()
        await asyncio.gather(*waiting, *([pending] if pending is not None else []), return_exceptions=True)
        await messages.aclose()
