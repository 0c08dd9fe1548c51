"""API keys: create, list, delete."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from espalier_client.lookup import api_key_id
from espalier_client.output import Output, OutputFormat, age, emit, moment, note, table_of
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Keys for your own programs.")

PATH = "/api/v1/me/api-keys"


@app.command()
def create(
    name: str,
    permission: Annotated[
        list[str] | None,
        typer.Option("--permission", "-p", help="Permission of the key; may be given several times. All without."),
    ] = None,
    days: Annotated[float, typer.Option(min=0, help="Days until it expires; 0: never.")] = 90,
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Make a key. It is shown now and never again."""
    key: dict[str, Any] = {"name": name, "permissions": permission or []}
    if days:
        key["expire_time"] = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    with open_api(server) as api:
        emit(api.post(PATH, key), output, table=lambda made: str(made["key"]))
    note("Keep the key now: it is not shown again.")


@app.command("list")
def list_keys(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List your keys, newest first."""
    with open_api(server) as api:
        emit(list(api.all(PATH, "api_keys")), output, table=_table)


@app.command()
def delete(key: str, server: Server = "") -> None:
    """Revoke a key, by its name or id; it ends everywhere within five seconds."""
    with open_api(server) as api:
        api.call("DELETE", f"{PATH}/{api_key_id(api, key)}")
    note(f"{key} is revoked")


def _table(keys: list[dict[str, Any]]) -> Any:
    rows = [
        (
            key["id"],
            key["name"],
            f"…{key['last_four']}",
            ", ".join(key["permissions"]) or "all of yours",
            moment(key.get("expire_time")) or "never",
            age(key.get("last_used_time")),
        )
        for key in keys
    ]
    return table_of(("ID", "NAME", "KEY", "PERMISSIONS", "EXPIRES", "LAST USED"), rows)
