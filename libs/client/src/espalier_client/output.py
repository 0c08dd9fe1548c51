"""What the command prints: tables for people, JSON and YAML for programs; nothing moves unless on a terminal."""

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from espalier_client.errors import ClientError

# Into a pipe or a file: as wide as it takes, so that a line of a table stays a line.
UNFOLDED = 400


class OutputFormat(StrEnum):
    """Form of the output."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="Form of the output.")]


def stdout() -> Console:
    """Where results go. Colours end where the terminal ends, or with NO_COLOR."""
    return Console(width=None if sys.stdout.isatty() else UNFOLDED, highlight=False)


def stderr() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, soft_wrap=not sys.stderr.isatty(), highlight=False)


def is_live() -> bool:
    """Whether bars may move: a person looks at a terminal that can."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") != "dumb" and not os.environ.get("CI")


def emit(value: Any, form: OutputFormat, *, table: Callable[[Any], Table | str]) -> None:
    """Prints a value; `table` renders it for people."""
    if form is OutputFormat.JSON:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    elif form is OutputFormat.YAML:
        import yaml

        sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    else:
        rendered = table(value)
        stdout().print(rendered, markup=False) if isinstance(rendered, str) else stdout().print(rendered)


def table_of(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> Table:
    """A plain table; texts of users are never read as markup."""
    from rich.text import Text

    table = Table(box=None, title=title, title_justify="left", pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=column in {"ID", "STATE"}, overflow="fold")
    for row in rows:
        table.add_row(*(Text("-" if cell in {None, ""} else str(cell)) for cell in row))
    return table


def print_error(error: ClientError) -> None:
    """The sentence, the wrong fields, and the id under which the platform's log knows it."""
    console = stderr()
    console.print("[bold red]error:[/] ", end="")
    console.print(error.message, markup=False)
    for violation in error.violations:
        if len(error.violations) == 1 and violation.description in error.message:
            continue  # said already
        where = f"{violation.field}: " if violation.field else ""
        console.print(f"  {where}{violation.description}", markup=False)
    if error.request_id:
        console.print(f"  request {error.request_id}", markup=False, style="dim")


def note(text: str) -> None:
    """A line about what goes on, on standard error."""
    stderr().print(text, markup=False, style="dim")


def age(timestamp: str | None) -> str:
    """How long ago an RFC 3339 time was, in its largest unit; empty for none."""
    if not timestamp:
        return ""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()
    return duration(seconds).split(" ")[0]


def moment(timestamp: str | None) -> str:
    """An RFC 3339 time as this machine's clock shows it; empty for none."""
    return f"{datetime.fromisoformat(timestamp).astimezone():%Y-%m-%d %H:%M}" if timestamp else ""


def duration(seconds: float) -> str:
    """Such as "12s", "3m 4s", "2h 5m", "4d 1h"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86_400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3600}h"


def bytes_text(size: float) -> str:
    """Such as "12.5 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def number(value: Any, digits: int = 4) -> str:
    """A measured value; a dash for none. Non-finite values come as texts."""
    if value is None or value == "":
        return "-"
    value = float(value)
    return f"{value:.{digits}g}" if math.isfinite(value) else str(value)


def word(enum_value: str, prefix: str) -> str:
    """An enum's value without its type: RUN_STATE_RUNNING → running."""
    return enum_value.removeprefix(prefix).lower().replace("_", "-")
