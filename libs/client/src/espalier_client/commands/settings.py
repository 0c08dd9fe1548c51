"""Settings: list, set, reset."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from espalier_client.output import Output, OutputFormat, age, emit, table_of, word
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Change settings while the platform runs.")

Name = Annotated[str, typer.Argument(help="Name of the setting, such as auth.registration.")]


@app.command("list")
def list_settings(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """List the settings, with their values and where these come from."""
    with open_api(server) as api:
        emit(api.get("/api/v1/settings")["settings"], output, table=_table)


@app.command("set")
def set_setting(
    name: Name,
    value: Annotated[str, typer.Argument(help="The new value.")],
    output: Output = OutputFormat.TABLE,
    server: Server = "",
) -> None:
    """Set a value, unless the environment of auth says it."""
    with open_api(server) as api:
        changed = api.call("PATCH", f"/api/v1/settings/{quote(name, safe='')}", {"value": value})
        emit(changed, output, table=lambda made: _table([made]))


@app.command()
def reset(name: Name, output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Go back to the default."""
    with open_api(server) as api:
        emit(
            api.post(f"/api/v1/settings/{quote(name, safe='')}:reset", {}),
            output,
            table=lambda made: _table([made]),
        )


def _table(settings: list[dict[str, Any]]) -> Any:
    rows = [
        (
            setting["name"],
            setting["value"],
            _origin(setting),
            _values(setting),
            age(setting.get("change_time")),
            setting["description"],
        )
        for setting in settings
    ]
    return table_of(("SETTING", "VALUE", "FROM", "ALLOWED", "CHANGED", "MEANING"), rows)


def _origin(setting: dict[str, Any]) -> str:
    origin = word(setting["origin"], "SETTING_ORIGIN_")
    return setting["variable"] if origin == "environment" else origin


def _values(setting: dict[str, Any]) -> str:
    if setting["allowed_values"]:
        return ", ".join(setting["allowed_values"])
    return f"{setting['minimum']} to {setting['maximum']}"
