"""What every call passes before and after its handler, in this order:

request id → log and metrics → deadline → identity → permission → validation → handler → error mapping
"""

import asyncio
import contextvars
import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from espalier_common.errors import (
    EspalierError,
    Internal,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from espalier_common.identity import Principal, TokenVerifier, set_principal
from espalier_common.rpc.context import AUTHORIZATION_HEADER, REQUEST_ID_HEADER, accept_request_id, header
from espalier_common.rpc.permissions import AUTHENTICATED, PUBLIC, requirement, stream_rule
from espalier_common.rpc.status import DETAILS_KEY, code_of, to_status, translate
from espalier_common.rpc.validation import violations
from espalier_common.settings import SettingsError
from espalier_common.telemetry import get_logger, request_id_var

if TYPE_CHECKING:
    from espalier_common.rpc.metrics import RpcMetrics

MAX_UNARY_SECONDS = 60.0
INTERNAL_TEXT = "Something went wrong here; the administrator finds the cause under the request id."

_log = get_logger(__name__)
_Context = grpc.aio.ServicerContext


@dataclass(frozen=True)
class MethodPlan:
    """What the edge knows of one RPC: full name, requirement, whether its stream can be resumed by the client."""

    name: str
    requires: str
    resumable: bool


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
            plans[path] = MethodPlan(method.full_name, requires, bool(stream_rule(method).resume))
    return plans


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
    ) -> None:
        self._plans = plans
        self._verifier = verifier
        self._pool = pool
        self._draining = draining
        self._metrics = metrics
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
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(plan, handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, plan: MethodPlan, handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        invoke = handler if inspect.iscoroutinefunction(handler) else self._in_pool(handler)

        async def call(request: Any, context: _Context[Any, Any]) -> Any:
            with self._observed(plan, context) as observed:
                try:
                    remaining = context.time_remaining()
                    async with asyncio.timeout(min(remaining or MAX_UNARY_SECONDS, MAX_UNARY_SECONDS)):
                        await self._admit(plan, request, context, observed)
                        return await invoke(request, context)
                except Exception as error:
                    await self._fail(error, context, observed)

        return call

    def _stream(self, plan: MethodPlan, handler: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: _Context[Any, Any]) -> AsyncIterator[Any]:
            with self._observed(plan, context) as observed:
                try:
                    await self._admit(plan, request, context, observed)
                    messages = handler(request, context)
                    if plan.resumable:
                        messages = _until(self._draining, messages)
                    async for message in messages:
                        yield message
                except Exception as error:
                    await self._fail(error, context, observed)

        return call

    def _in_pool(self, handler: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        def invoke(request: Any, context: Any) -> Awaitable[Any]:
            running = contextvars.copy_context()
            return asyncio.get_running_loop().run_in_executor(self._pool, running.run, handler, request, context)

        return invoke

    async def _admit(self, plan: MethodPlan, request: Any, context: _Context[Any, Any], observed: "_Observed") -> None:
        principal = await self._identify(plan, context)
        set_principal(principal)
        observed.subject = principal.subject if principal else ""
        if plan.requires not in {PUBLIC, AUTHENTICATED} and not (principal and principal.may(plan.requires)):
            raise PermissionDenied(plan.requires)
        if found := violations(request):
            first = found[0]
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise InvalidArgument(
                f"The request is not valid: {first.field} {first.description}{more}.", violations=found
            )

    async def _identify(self, plan: MethodPlan, context: _Context[Any, Any]) -> Principal | None:
        authorization = header(_metadata(context), AUTHORIZATION_HEADER) or ""
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
            answer = Internal(INTERNAL_TEXT)
        observed.error = answer
        trailing: list[tuple[str, str | bytes]] = [
            (DETAILS_KEY, to_status(answer, request_id).SerializeToString()),
            (REQUEST_ID_HEADER, request_id),
        ]
        await context.abort(code_of(answer), answer.message[:1024], tuple(trailing))

    @contextmanager
    def _observed(self, plan: MethodPlan, context: _Context[Any, Any]) -> Iterator["_Observed"]:
        request_id = accept_request_id(header(_metadata(context), REQUEST_ID_HEADER))
        request_id_var.set(request_id)
        context.set_trailing_metadata(((REQUEST_ID_HEADER, request_id),))
        observed = _Observed(plan.name)
        started = time.perf_counter()
        try:
            yield observed
        except asyncio.CancelledError:
            observed.cancelled = True
            raise
        except GeneratorExit:
            observed.cancelled = True
            raise
        finally:
            seconds = time.perf_counter() - started
            observed.log(seconds)
            if self._metrics is not None:
                self._metrics.observe(observed.rpc, observed.code, seconds)


class _Observed:
    """What the log line of one call says."""

    def __init__(self, rpc: str) -> None:
        self.rpc = rpc
        self.subject = ""
        self.error: EspalierError | None = None
        self.cancelled = False

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


def _metadata(context: _Context[Any, Any]) -> Iterable[tuple[str, str | bytes]]:
    return context.invocation_metadata() or ()


async def _until(draining: asyncio.Event, messages: AsyncGenerator[Any, None]) -> AsyncIterator[Any]:
    """The messages, until the server is told to stop: a client that can resume goes on at another replica, or later."""
    stop = asyncio.ensure_future(draining.wait())
    pending: asyncio.Future[Any] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(anext(messages))
            await asyncio.wait({pending, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not pending.done():
                raise Unavailable("The service is restarting; resume the stream.", retry_after=1)
            try:
                yield pending.result()
            except StopAsyncIteration:
                return
    finally:
        stop.cancel()
        if pending is not None and not pending.done():
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        await messages.aclose()
