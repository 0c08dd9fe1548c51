"""Limits of use, as the services that serve users ask for them at auth: in their own name, whoever calls.

Amounts go by the names of the contract's `UsageKind`, such as `TOKENS_IN`. A reservation ends with the `UsageRecorded`
(or `AnswerFinished`) that names it, or by itself. While auth is away, those are served of whom its last answer said
that nothing limits them; everybody else waits (docs/adr/0009).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache, partial

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from espalier_common.errors import DeadlineExceeded, Unavailable
from espalier_common.rpc.channel import open_sync_channel
from espalier_common.rpc.context import AUTHORIZATION_HEADER
from espalier_common.rpc.status import from_rpc_error
from espalier_common.telemetry import get_logger

CALL_SECONDS = 3.0
MAX_KNOWN = 4096  # users

_log = get_logger(__name__)


class QuotasUnknown(Unavailable):
    reason = "QUOTAS_UNKNOWN"


class Limits:
    """QuotaService at host:port; `token` gives the service's own token and may block. Thread-safe; blocks."""

    def __init__(self, address: str, *, token: Callable[[], str]) -> None:
        self._channel = cache(partial(open_sync_channel, address, timeout=CALL_SECONDS))
        self._token = token
        self._limited: OrderedDict[str, bool] = OrderedDict()
        self._lock = threading.Lock()

    def reserve(self, reservation_id: str, *, user_id: str, amounts: Mapping[str, float], seconds: float) -> None:
        """Holds the amounts for so long; the same id again holds them for longer. 0 asks whether anything is left.

        Raises ResourceExhausted (which limit, how much, until when), and QuotasUnknown when auth cannot be asked.
        """
        try:
            limited = self._reserve(reservation_id, user_id=user_id, amounts=amounts, seconds=seconds)
        except (Unavailable, DeadlineExceeded) as error:
            if self._last_answer(user_id) is False:
                _log.warning("auth is away; a user without limits is served", user_id=user_id)
                return
            raise QuotasUnknown(
                "Your quota cannot be checked at the moment; try again in a few seconds.", retry_after=5
            ) from error
        with self._lock:
            self._limited[user_id] = limited
            self._limited.move_to_end(user_id)
            while len(self._limited) > MAX_KNOWN:
                self._limited.popitem(last=False)

    def _last_answer(self, user_id: str) -> bool | None:
        with self._lock:
            return self._limited.get(user_id)

    def _reserve(self, reservation_id: str, *, user_id: str, amounts: Mapping[str, float], seconds: float) -> bool:
        from espalier.auth.v1 import usage_pb2, usage_pb2_grpc

        until = Timestamp()
        until.GetCurrentTime()
        until.seconds += round(seconds)
        request = usage_pb2.ReserveUsageRequest(
            reservation_id=reservation_id,
            user_id=user_id,
            amounts=[
                usage_pb2.UsageAmount(kind=usage_pb2.UsageKind.Value(f"USAGE_KIND_{name}"), amount=amount)
                for name, amount in amounts.items()
            ],
            expire_time=until,
        )
        # Named here, or the channel would send the token of the user who is served.
        metadata = ((AUTHORIZATION_HEADER, f"Bearer {self._token()}"),)
        try:
            # An auth that has just been restarted is waited for; not where nothing hangs on its answer.
            waits = self._last_answer(user_id) is not False
            stub = usage_pb2_grpc.QuotaServiceStub(self._channel())
            reply = stub.ReserveUsage(request, metadata=metadata, wait_for_ready=waits)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return bool(reply.limited)
