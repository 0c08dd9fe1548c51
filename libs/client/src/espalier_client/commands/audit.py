"""The audit log: read it, take it away as a file, check its chain."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from espalier_client.errors import ClientError
from espalier_client.moments import read_moment
from espalier_client.output import Output, OutputFormat, emit, note, table_of, word
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Who did what: read, export and check the audit log.")


class Result(StrEnum):
    """How a call ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class FileFormat(StrEnum):
    """Form of an export."""

    CSV = "csv"
    JSONL = "jsonl"


class BrokenChain(ClientError):
    """An event is missing or was changed."""


Actor = Annotated[str, typer.Option(help="Only of this user or service, by id or name.")]
Action = Annotated[str, typer.Option(help="Only actions that begin with this, such as UserService/.")]
Target = Annotated[str, typer.Option(help="Only targets that begin with this, such as users/.")]
Outcome = Annotated[Result | None, typer.Option(help="Only calls that ended so.")]
Since = Annotated[str, typer.Option(help="Only from this time on, such as 2026-03-01 or 2026-03-01T18:00Z.")]
Until = Annotated[str, typer.Option(help="Only before this time. One without a zone is this machine's.")]
Address = Annotated[str, typer.Option(help="Only calls from this address.")]
RequestId = Annotated[str, typer.Option(help="Only what happened in this request.")]
Query = Annotated[str, typer.Option("--query", "-q", help="Only with these words in them.")]


@app.command("list")
def list_events(
    actor: Actor = "",
    action: Action = "",
    target: Target = "",
    result: Outcome = None,
    since: Since = "",
    until: Until = "",
    address: Address = "",
    request_id: RequestId = "",
    query: Query = "",
    limit: Annotated[int, typer.Option(min=1, help="Most events to list.")] = 50,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """List the events, the newest first."""
    wanted = _filter(
        actor=actor,
        action=action,
        target=target,
        result=result,
        start_time=read_moment(since, "--since"),
        end_time=read_moment(until, "--until"),
        address=address,
        request_id=request_id,
        query=query,
    )
    with open_api(server) as api:
        emit(list(api.all("/api/v1/audit-events", "events", limit=limit, **wanted)), output, table=_table)


@app.command()
def export(
    file: Annotated[Path | None, typer.Argument(help="File to write; standard output without one.")] = None,
    form: Annotated[FileFormat, typer.Option("--format", "-f", help="Form of the file.")] = FileFormat.CSV,
    actor: Actor = "",
    action: Action = "",
    target: Target = "",
    result: Outcome = None,
    since: Since = "",
    until: Until = "",
    address: Address = "",
    request_id: RequestId = "",
    query: Query = "",
    server: Server = "",
) -> None:
    """Write the events, the oldest first, as CSV or JSON Lines. An export is told to the audit log itself."""
    wanted = _filter(
        actor=actor,
        action=action,
        target=target,
        result=result,
        start_time=read_moment(since, "--since"),
        end_time=read_moment(until, "--until"),
        address=address,
        request_id=request_id,
        query=query,
    )
    with open_api(server) as api:
        pieces = api.download("/api/v1/audit-events:export", format=form.value, **wanted)
        if file is None:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        size = _write(file, pieces)
        note(f"{file}: {size} bytes")


@app.command()
def verify(
    head: Annotated[
        str, typer.Option(help="A head that was kept elsewhere, as an earlier check printed it: it must be there.")
    ] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Check the chain of the whole log. Ends with 1 when an event is missing or was changed, and names the first."""
    checked, start = 0, ""
    with open_api(server) as api:
        while True:
            found = api.get("/api/v1/audit-events:verify", start=start or None, head=head or None)
            checked += int(found["checked"])
            start = found["next"]
            if not start:
                break
            note(found["message"])
    emit({**found, "checked": checked}, output, table=_verdict)
    if not found["intact"]:
        raise BrokenChain(f"The audit log is broken at event {int(found['broken_sequence'])}: {found['message']}")


def _filter(*, result: Result | None, **texts: str) -> dict[str, str]:
    wanted = {name: text for name, text in texts.items() if text}
    return {**wanted, "result": f"AUDIT_RESULT_{result.name}"} if result else wanted


def _write(file: Path, pieces: Any) -> int:
    """Under another name first: half an export must not look like a whole one."""
    temporary = file.with_name(f"{file.name}.part")
    size = 0
    try:
        with temporary.open("wb") as target:
            for piece in pieces:
                size += target.write(piece)
        temporary.replace(file)
    except OSError as error:
        raise ClientError(f"Cannot write {file}: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _table(events: list[dict[str, Any]]) -> Any:
    rows = [
        (
            event["time"],
            event["actor_name"] or event["actor_id"],
            event["action"].rpartition(".")[2],
            event["target"],
            word(event["result"], "AUDIT_RESULT_"),
            event["reason"],
            event["address"],
        )
        for event in events
    ]
    return table_of(("TIME", "WHO", "ACTION", "TARGET", "RESULT", "REASON", "ADDRESS"), rows)


def _verdict(found: dict[str, Any]) -> str:
    lines = [f"{found['checked']} events checked. {found['message']}"]
    if found["head"]:
        lines.append(f"Head, to keep elsewhere: {found['head']}")
    return "\n".join(lines)
