"""Server streams as files: a GET whose stream just ends may be had as CSV or JSON Lines instead of events.

Chosen by `?format=csv|jsonl`, or by `Accept: text/csv`, `application/jsonl` or `application/x-ndjson`. One row a
message, in the order of the message's fields; what is no text, number or truth value stands as JSON in its cell.

A spreadsheet must not run what somebody wrote into a name: texts that it would take for a formula are led by an
apostrophe. An error after the first row breaks the connection off, so that half a file is never taken for a whole one.
"""

import asyncio
import csv
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.types import Send

from espalier_common.errors import EspalierError, FieldViolation, InvalidArgument, Unavailable
from espalier_gateway.call_relay import CallRelay, Outlet
from espalier_gateway.contract import Binding
from espalier_gateway.json_writer import as_value
from espalier_gateway.settings import GatewaySettings

MEDIA_TYPES = {"csv": "text/csv", "jsonl": "application/jsonl"}
# JSON Lines have no registered name; this one is asked for as often.
_ACCEPTED = {media_type: name for name, media_type in MEDIA_TYPES.items()} | {"application/x-ndjson": "jsonl"}
PARAMETER = "format"
PIECE_BYTES = 64 << 10
# What spreadsheets begin a formula with, in full width too, and what they skip before they look.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")

Row = Callable[[Message], str]


def wanted_format(binding: Binding, request: Request) -> str:
    """`csv`, `jsonl`, or empty for events. Raises InvalidArgument for a format that there is not."""
    if not binding.exports:
        return ""
    named = dict(parse_qsl(request.url.query, keep_blank_values=True)).get(PARAMETER)
    if named is not None:
        if named not in MEDIA_TYPES:
            violation = FieldViolation(PARAMETER, f"must be one of {', '.join(MEDIA_TYPES)}", "UNKNOWN_VALUE")
            raise InvalidArgument(f"The format must be one of {', '.join(MEDIA_TYPES)}.", violations=[violation])
        return named
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")]
    return next((_ACCEPTED[media_type] for media_type in accepted if media_type in _ACCEPTED), "")


def without_format(query: bytes) -> bytes:
    """The query without the parameter that is the gateway's own."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    if all(name != PARAMETER for name, _ in pairs):
        return query
    return urlencode([pair for pair in pairs if pair[0] != PARAMETER], encoding="latin-1").encode()


class RowFiles:
    """Sends streams as files. `draining` is set when the process is about to end: a file then breaks off."""

    def __init__(self, settings: GatewaySettings, *, draining: asyncio.Event) -> None:
        self._settings = settings
        self._relay = CallRelay(settings, draining=draining)

    async def send(self, binding: Binding, call: Any, request: Request, send: Send, *, kind: str) -> None:
        """The whole stream. Raises its error; after the first row that breaks the connection off."""
        await self._relay.carry(call, _File(self._settings, binding=binding, send=send, kind=kind), request)


class _File:
    """One call as a file. Rows gather to a piece, which is written when it is large enough."""

    def __init__(self, settings: GatewaySettings, *, binding: Binding, send: Send, kind: str) -> None:
        is_csv = kind == "csv"
        self._row = csv_row(binding.rpc.output_type) if is_csv else jsonl_row
        self._piece = csv_head(binding.rpc.output_type) if is_csv else ""
        self._outlet = Outlet(settings, send)
        self._headers = [
            (b"content-type", f"{MEDIA_TYPES[kind]}; charset=utf-8".encode()),
            (b"content-disposition", f'attachment; filename="{file_name(binding)}.{kind}"'.encode()),
            (b"cache-control", b"no-store"),
        ]

    async def take(self, message: Message) -> None:
        self._piece += self._row(message)
        if len(self._piece) >= PIECE_BYTES:
            await self._write()

    async def end(self) -> None:
        await self._write(last=True)

    async def fail(self, error: EspalierError) -> None:
        raise error

    async def pause(self) -> None:
        """A file has no room for a word that all is well."""

    async def leave(self) -> None:
        raise Unavailable("The gateway is being restarted; ask for the file again.", retry_after=2)

    async def _write(self, *, last: bool = False) -> None:
        piece, self._piece = self._piece, ""
        await self._outlet.write(piece.encode(), headers=self._headers, last=last)


def file_name(binding: Binding) -> str:
    """`audit-events` of `/api/v1/audit-events:export`."""
    return binding.template.text.rpartition("/")[2].partition(":")[0].strip("{}") or "export"


def csv_head(descriptor: Descriptor) -> str:
    """The line of column names."""
    return _line([field.name for field in descriptor.fields])


def csv_row(descriptor: Descriptor) -> Row:
    """The function that makes a line of a message."""
    names = [field.name for field in descriptor.fields]

    def write(message: Message) -> str:
        value = as_value(message)
        return _line([_cell(value.get(name)) for name in names])

    return write


def jsonl_row(message: Message) -> str:
    """A line of JSON."""
    return orjson.dumps(as_value(message)).decode() + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else orjson.dumps(value).decode()


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue()
