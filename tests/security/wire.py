"""Any RPC of the platform by its descriptor: at its service over gRPC, and at the gateway over REST."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc
import httpx
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from platform_process import Platform

from espalier_common.rpc.permissions import all_services
from espalier_gateway.contract import Binding, read_contract, service_name

CALL_SECONDS = 60.0
REFUSALS = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


def all_rpcs() -> list[MethodDescriptor]:
    """Every RPC of every service, in the order of the protos."""
    return [method for service in all_services() for method in service.methods]


def new_request(rpc: MethodDescriptor) -> Message:
    """An empty request."""
    return GetMessageClass(rpc.input_type)()


@dataclass(frozen=True)
class Told:
    """What a caller was told: the code of the answer ("OK" when it was one) and all of it but the request id."""

    code: str
    text: str

    def but_for(self, names: dict[str, str]) -> "Told":
        """The same with some words replaced."""
        text = self.text
        for before, after in names.items():
            text = text.replace(before, after)
        return Told(self.code, text)


class Wire:
    """Calls to one running platform."""

    def __init__(self, platform: Platform) -> None:
        ports = json.loads((platform.home / "run" / "ports.json").read_text("utf-8"))
        self._channels = {name: grpc.insecure_channel(f"127.0.0.1:{port}") for name, port in ports.items()}
        self._http = httpx.Client(base_url=platform.url, timeout=CALL_SECONDS)
        self._bindings = {binding.rpc.full_name: binding for binding in read_contract()}

    def close(self) -> None:
        self._http.close()
        for channel in self._channels.values():
            channel.close()

    def transports(self, rpc: MethodDescriptor) -> Iterator[Any]:
        """The ways to call this RPC, each a function of request and token."""
        yield lambda request, token: self.grpc(rpc, request, token)
        if rpc.full_name in self._bindings:
            yield lambda request, token: self.rest(rpc, request, token)

    def grpc(self, rpc: MethodDescriptor, request: Message, token: str | None) -> Told:
        """Calls the service itself. The first message of a stream is its answer."""
        channel = self._channels[service_name(rpc.containing_service)]
        path = f"/{rpc.containing_service.full_name}/{rpc.name}"
        make = channel.unary_stream if rpc.server_streaming else channel.unary_unary
        call = make(
            path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(rpc.output_type).FromString,
        )
        metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        try:
            answer = call(request, timeout=CALL_SECONDS, metadata=metadata)
            if rpc.server_streaming:
                first = next(iter(answer), None)
                answer.cancel()
                answer = first
            return Told("OK", "" if answer is None else str(answer))
        except grpc.RpcError as error:
            return Told(error.code().name, _without_request_id(error))  # type: ignore[attr-defined]

    def rest(self, rpc: MethodDescriptor, request: Message, token: str | None) -> Told:
        """Calls the same through the gateway."""
        binding = self._bindings[rpc.full_name]
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        path, query, body = _spelled(binding, request)
        with self._http.stream(
            binding.method, path, params=query, json=body if binding.body else None, headers=headers
        ) as answer:
            if answer.status_code < 300:
                return Told("OK", "" if rpc.server_streaming else answer.read().decode())
            problem = json.loads(answer.read())
        assert answer.status_code < 500, problem
        problem.pop("request_id")
        return Told(REFUSALS.get(answer.status_code, str(answer.status_code)), json.dumps(problem))


def _without_request_id(error: grpc.RpcError) -> str:
    metadata: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[attr-defined]
    request_id = str(metadata.get("x-request-id", "\0"))
    details = metadata.get("grpc-status-details-bin", b"")
    return f"{error.details()} {details!r}".replace(request_id, "")  # type: ignore[attr-defined]


def _spelled(binding: Binding, request: Message) -> tuple[str, dict[str, Any], Any]:
    """Path, query and body. A path without a value of its own gets a word that names nothing."""
    value = json_format.MessageToDict(request, preserving_proto_field_name=True)
    path = binding.template.openapi
    for name in binding.template.names:
        holder = value
        *parents, last = name.split(".")
        for parent in parents:
            holder = holder.get(parent, {})
        path = path.replace(f"{{{name}}}", quote(str(holder.pop(last, "nothing")), safe=""))
    body = value if binding.body == "*" else value.pop(binding.body, {}) if binding.body else None
    query = {} if binding.body == "*" else {name: v for name, v in value.items() if name in binding.query_fields}
    return path, query, body
