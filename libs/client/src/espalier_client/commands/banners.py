"""Banners: list, create, delete."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from espalier_client.moments import read_moment
from espalier_client.output import Output, OutputFormat, emit, moment, note, table_of, word
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Tell everybody something at the top of the console.")


class Kind(StrEnum):
    """Weight of a banner."""

    INFORMATION = "information"
    WARNING = "warning"
    MAINTENANCE = "maintenance"


@app.command("list")
def list_banners(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List the banners, past and future ones too, by beginning."""
    with open_api(server) as api:
        emit(api.get("/api/v1/banners")["banners"], output, table=_table)


@app.command()
def create(
    text: Annotated[str, typer.Argument(help="What everybody is told.")],
    kind: Annotated[Kind, typer.Option(help="Its weight.")] = Kind.INFORMATION,
    start: Annotated[str, typer.Option(help="From when, such as 2026-12-01T18:00+01:00; at once if left out.")] = "",
    end: Annotated[str, typer.Option(help="Until when; until it is deleted if left out.")] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Tell everybody something, from a beginning to an end. A time without a zone is this machine's."""
    banner = {
        "text": text,
        "kind": f"BANNER_KIND_{kind.name}",
        "start_time": read_moment(start, "--start"),
        "end_time": read_moment(end, "--end"),
    }
    with open_api(server) as api:
        made = api.post("/api/v1/banners", {name: value for name, value in banner.items() if value})
        emit(made, output, table=lambda found: _table([found]))


@app.command()
def delete(banner: Annotated[str, typer.Argument(help="Id of the banner.")], server: Server = "") -> None:
    """Take a banner away."""
    with open_api(server) as api:
        api.call("DELETE", f"/api/v1/banners/{banner}")
        note(f"Deleted banner {banner}.")


def _table(banners: list[dict[str, Any]]) -> Any:
    rows = [
        (
            banner["id"],
            word(banner["kind"], "BANNER_KIND_"),
            moment(banner.get("start_time")),
            moment(banner.get("end_time")),
            banner["text"],
        )
        for banner in banners
    ]
    return table_of(("ID", "KIND", "FROM", "UNTIL", "TEXT"), rows)
