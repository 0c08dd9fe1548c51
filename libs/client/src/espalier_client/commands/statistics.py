"""Statistics: figures of a period against the one before."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from espalier_client.output import Output, OutputFormat, duration, emit, table_of
from espalier_client.session import Server, open_api

# What the figures are called, and how a value of each reads.
_FIGURES = (
    ("active_users", "active users", "{:,.0f}".format),
    ("requests", "requests", "{:,.0f}".format),
    ("tokens", "tokens", "{:,.0f}".format),
    ("trained_tokens", "of them trained on", "{:,.0f}".format),
    ("gpu_hours", "GPU-hours", "{:,.2f}".format),
    ("success_rate", "success rate", "{:.1%}".format),
    ("queue_wait_seconds", "queue wait", duration),
)


def statistics(
    days: Annotated[float, typer.Option(min=0.01, max=3650, help="Of the last so many days.")] = 30,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Show who used the platform and how much, against as many days before. A dash: nothing was measured."""
    start = (datetime.now(UTC) - timedelta(days=days)).isoformat().replace("+00:00", "Z")
    with open_api(server) as api:
        emit(api.get("/api/v1/statistics", start_time=start), output, table=_table)


def _table(found: dict[str, Any]) -> Any:
    rows: list[tuple[str, ...]] = []
    for name, title, text in _FIGURES:
        figure = found.get(name) or {}
        value, before = figure.get("value"), figure.get("before")
        rows.append((title, *("" if each is None else text(each) for each in (value, before)), _change(value, before)))
    for name, title in (("top_users", "top user"), ("top_models", "top model")):
        for each in found.get(name, []):
            rows.append((f"{title} {each.get('label') or each['name']}", f"{each['amount']:,.0f} tokens", "", ""))
    return table_of(("", "NOW", "BEFORE", "CHANGE"), rows)


def _change(value: float | None, before: float | None) -> str:
    return f"{value / before - 1:+.0%}" if value is not None and before else ""
