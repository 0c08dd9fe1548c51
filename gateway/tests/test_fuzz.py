"""Whatever is sent, no answer is a 5xx; and the JSON code agrees with protobuf's own."""

import json
import math
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from espalier.auth.v1 import service_pb2 as auth_pb2
from espalier.chat.v1 import service_pb2 as chat_pb2
from espalier.training_orchestrator.v1 import run_pb2, run_service_pb2
from espalier_common.errors import InvalidArgument
from espalier_gateway.contract import Binding, read_contract
from espalier_gateway.errors import HttpError
from espalier_gateway.json_reader import Findings, read_message
from espalier_gateway.json_writer import as_value
from espalier_gateway.map_fields import is_map, key_of, value_of
from espalier_gateway.problems import problem_of, status_of
from espalier_gateway.request_reader import read_request
from espalier_gateway.strict_json import parse_json

from .running import RunningGateway

CONTRACT = read_contract()
QUIET = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def scalar(field: FieldDescriptor) -> Any:
    kinds = {
        field.CPPTYPE_BOOL: st.booleans(),
        field.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        field.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        field.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
        field.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
        field.CPPTYPE_FLOAT: st.floats(width=32),
        field.CPPTYPE_DOUBLE: st.floats(),
    }
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == field.TYPE_BYTES:
        return st.binary(max_size=20)
    return kinds.get(field.cpp_type, st.text(max_size=20))


@st.composite
def messages(draw: Any, message_class: Any, depth: Any = 0) -> Any:
    message = message_class()
    fill(draw, message, depth)
    return message


def fill(draw: Any, message: Any, depth: Any) -> Any:
    if message.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
        message.seconds = draw(st.integers(-62_135_596_800, 253_402_300_799))
        message.nanos = draw(st.sampled_from([0, 1, 500_000_000, 999_999_999]))
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.Duration":
        message.seconds = draw(st.integers(0, 315_576_000_000))
        return
    if message.DESCRIPTOR.full_name == "google.protobuf.FieldMask":
        message.paths.extend(draw(st.lists(st.sampled_from(["name", "user.display_name"]), max_size=2)))
        return
    for field in message.DESCRIPTOR.fields:
        if depth < 4 and draw(st.booleans()):
            fill_field(draw, message, field, depth)


def fill_field(draw: Any, message: Any, field: FieldDescriptor, depth: Any) -> Any:
    target = getattr(message, field.name)
    if is_map(field):
        for key in draw(st.lists(scalar(key_of(field)), max_size=2)):
            if value_of(field).message_type is None:
                target[key] = draw(scalar(value_of(field)))
    elif field.is_repeated:
        for _ in range(draw(st.integers(0, 2))):
            if field.message_type is None:
                target.append(draw(scalar(field)))
            else:
                fill(draw, target.add(), depth + 1)
    elif field.message_type is not None:
        target.SetInParent()
        fill(draw, target, depth + 1)
    else:
        setattr(message, field.name, draw(scalar(field)))


message_classes = st.sampled_from(
    [run_pb2.Run, run_service_pb2.ListMetricsResponse, chat_pb2.Session, auth_pb2.Me, auth_pb2.UpdateUserRequest]
)


@QUIET
@given(data=st.data())
def test_what_is_written_is_what_protobuf_itself_writes(data: st.DataObject) -> None:
    message = data.draw(message_classes.flatmap(messages))
    theirs = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    if isinstance(message, auth_pb2.UpdateUserRequest):
        # Ours are the proto's names, as everywhere in the API; protobuf writes lowerCamelCase here alone.
        theirs["update_mask"] = ",".join(message.update_mask.paths)
        ours = {"update_mask": "", **as_value(message)}
    else:
        ours = as_value(message)
    assert ours == theirs


@QUIET
@given(data=st.data())
def test_what_is_written_is_read_back_as_it_was(data: st.DataObject) -> None:
    message = data.draw(message_classes.flatmap(messages))
    findings = Findings()
    again = type(message)()
    read_message(again, json.loads(json.dumps(as_value(message))), path="", findings=findings)
    assert not findings.items
    assert same(again, message)


def same(left: Any, right: Any) -> Any:
    """Equality in which NaN equals NaN."""
    return as_value(left) == as_value(right) and left.ByteSize() == right.ByteSize()


@QUIET
@given(binding=st.sampled_from(CONTRACT), body=json_values, query=st.text(max_size=30), path=st.text(max_size=20))
def test_no_json_and_no_query_breaks_the_reader(binding: Binding, body: Any, query: str, path: str) -> None:
    check_read_or_refused(binding, json.dumps(body).encode(), query.encode(), path)


@QUIET
@given(binding=st.sampled_from(CONTRACT), body=st.binary(max_size=60), query=st.binary(max_size=40))
def test_no_bytes_break_the_reader(binding: Binding, body: Any, query: bytes) -> None:
    check_read_or_refused(binding, body, query, "x")


@QUIET
@given(data=st.data())
def test_requests_that_are_nearly_right_are_read_or_refused(data: st.DataObject) -> None:
    binding = data.draw(st.sampled_from([each for each in CONTRACT if each.body]))
    value: Any = as_value(data.draw(messages(binding.request_class)))
    names = data.draw(st.lists(st.sampled_from(sorted(value) or ["x"]), max_size=2))
    for name in names:
        value[name] = data.draw(json_values)
    check_read_or_refused(binding, json.dumps(value).encode(), b"", "018f6e1c-0b0a-7c3e-9d5a-0242ac120003")


def check_read_or_refused(binding: Binding, body: Any, query: bytes, path: str) -> Any:
    values = dict.fromkeys(binding.template.names, path)
    try:
        read_request(binding, path=values, query=query, body=body, content_type="application/json")
    except (InvalidArgument, HttpError) as error:
        refusal = error
    else:
        return
    assert 400 <= status_of(refusal) < 500
    problem_of(refusal, "id").response()


@QUIET
@given(value=json_values)
def test_strict_json_reads_what_json_writes(value: Any) -> None:
    read = parse_json(json.dumps(value).encode())
    assert equal(read, value)


def equal(left: Any, right: Any) -> Any:
    if isinstance(left, float) or isinstance(right, float):
        return math.isclose(left, right) or left == right
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[name], right[name]) for name in left)
    return left == right


async def test_no_route_of_the_contract_answers_garbage_with_a_5xx(gateway: RunningGateway) -> None:
    client = gateway.client_for()
    served = set(gateway.settings.services)
    segments = ("x", "%00", "018f6e1c-0b0a-7c3e-9d5a-0242ac120003")
    bodies = (b"{}", b"[]", b'{"\\u0000": 1}', b'{"spec": 1, "name": {}, "page_size": "x"}', b"\xff")
    for number, binding in enumerate(each for each in CONTRACT if each.service in served):
        path = binding.template.text
        for name in binding.template.names:
            path = path.replace("{" + name + "}", segments[number % 3])
        for content in bodies:
            headers = {"content-type": "application/json"}
            answer = await client.request(binding.method, path, content=content, headers=headers)
            # 501: the doubles stand in for a few services of auth; the security tests ask the real ones.
            assert answer.status_code < 500 or answer.status_code == 501, (binding.rpc.full_name, path, answer.text)
