"""Usage: what was used, by whom and when."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from espalier_client import lookup
from espalier_client.output import Output, OutputFormat, bytes_text, duration, emit, note, table_of, word
from espalier_client.session import Server, open_api

KIND = "USAGE_KIND_"
_HOUR = 3600.0  # seconds


class Dimension(StrEnum):
    """What use is told apart by."""

    USER = "user"
    GROUP = "group"
    MODEL = "model"
    SOURCE = "source"


class Grain(StrEnum):
    """Time steps."""

    TOTAL = "total"
    HOUR = "hour"
    DAY = "day"


def usage(
    days: Annotated[float, typer.Option(min=0.01, max=3650, help="Of the last so many days.")] = 30,
    by: Annotated[list[Dimension] | None, typer.Option("--by", help="Tell apart; may be given several times.")] = None,
    per: Annotated[Grain, typer.Option(help="Time steps.")] = Grain.TOTAL,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's use, not only your own.")] = False,
    user: Annotated[str, typer.Option(help="Only this user's: name or id. Means --all.")] = "",
    group: Annotated[str, typer.Option(help="Only this group's: name or id. Means --all.")] = "",
    model: Annotated[str, typer.Option(help="Only of this model.")] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Show what you used: tokens, requests, GPU and CPU time, stored bytes."""
    dimensions = [dimension.value for dimension in by or []]
    with open_api(server) as api:
        answer = api.get(
            "/api/v1/usage" if everybody or user or group else "/api/v1/me/usage",
            start_time=(datetime.now(UTC) - timedelta(days=days)).isoformat().replace("+00:00", "Z"),
            group_by=dimensions or None,
            grain=None if per is Grain.TOTAL else f"USAGE_GRAIN_{per.upper()}",
            user_id=lookup.user_id(api, user) if user else None,
            group_id=lookup.group_id(api, group) if group else None,
            model=model or None,
        )
    if answer.get("truncated"):
        note("There is more than one answer holds; ask for fewer days or longer time steps.")
    emit(answer.get("rows", []), output, table=lambda rows: _table(rows, dimensions, per))


def amount_text(kind: str, amount: float) -> str:
    """An amount of a kind for people, such as "1.5 h" of GPU-seconds."""
    if kind.endswith("_SECONDS"):
        return duration(amount) if amount < _HOUR else f"{amount / _HOUR:,.2f} h"
    return bytes_text(amount) if kind == "USAGE_KIND_STORED_BYTES" else f"{amount:,.0f}"


def _table(rows: list[dict[str, Any]], dimensions: list[str], per: Grain) -> Any:
    if not rows:
        return "Nothing was used."
    step = [] if per is Grain.TOTAL else ["TIME"]
    columns = (*step, "WHAT", "AMOUNT", *(name.upper() for name in dimensions))
    return table_of(
        columns,
        [
            (
                *([row["time"]] if step else []),
                word(row["kind"], KIND),
                _amount(row),
                *(_said(row, name) for name in dimensions),
            )
            for row in rows
        ],
    )


def _amount(row: dict[str, Any]) -> str:
    """The amount; where the model server did not tell all of it, also how much is estimated."""
    kind, estimated = row["kind"], row.get("estimated", 0)
    amount = amount_text(kind, row["amount"])
    return f"{amount} ({amount_text(kind, estimated)} estimated)" if estimated else amount


def _said(row: dict[str, Any], dimension: str) -> str:
    """The name of a user or group; the id of one that has none for us."""
    if dimension in {"user", "group"}:
        return str(row.get(f"{dimension}_name") or row.get(f"{dimension}_id", ""))
    return str(row.get(dimension, ""))
