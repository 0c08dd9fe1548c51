"""One's own second factor: show, enrol, recovery-codes, remove."""

from typing import Annotated, Any

import typer

from espalier_client.api import Api
from espalier_client.commands.sign_in import read_code
from espalier_client.output import Output, OutputFormat, emit, moment, note, table_of
from espalier_client.session import Server, open_api

app = typer.Typer(no_args_is_help=True, help="Codes that signing in asks for beside your password.")

PATH = "/api/v1/me/second-factor"
Code = Annotated[str, typer.Option("--code", help="Code of the authenticator, or a recovery code; else asked for.")]


@app.command()
def show(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Say whether you have one, since when, and how many recovery codes are left."""
    with open_api(server) as api:
        emit(api.get(PATH), output, table=_state)


@app.command()
def enrol(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Give an authenticator app a secret, and confirm with its code: typed, or a line of standard input.

    Ten recovery codes go to standard output, once.
    """
    with open_api(server) as api:
        begun = api.post(PATH, {})
        note(f"Give your authenticator app this address (as a QR code), or the secret:\n\n{begun['otpauth_uri']}")
        note(f"\n{begun['secret']}\n")
        made = api.post(f"{PATH}:confirm", {"code": read_code("Code that the app shows")})
        api.renew()
    _show_codes(made, output)


@app.command("recovery-codes")
def recovery_codes(code: Code = "", output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Make ten new recovery codes; those of before work no more."""
    with open_api(server) as api:
        made = _with_code(api, "newRecoveryCodes", code)
    _show_codes(made, output)


@app.command()
def remove(code: Code = "", server: Server = "") -> None:
    """Remove your second factor; your password alone signs in then."""
    with open_api(server) as api:
        _with_code(api, "remove", code)
        api.renew()
    note("Your second factor is removed; your other sessions are ended.")


def _with_code(api: Api, verb: str, code: str) -> Any:
    return api.post(f"{PATH}:{verb}", {"code": code or read_code()})


def _show_codes(made: dict[str, Any], output: OutputFormat) -> None:
    emit(made, output, table=lambda shown: "\n".join(shown["recovery_codes"]))
    note("Keep these recovery codes: each signs in once in place of a code, and they are never shown again.")


def _state(state: dict[str, Any]) -> Any:
    rows = [
        ("second factor", "yes" if state["enrolled"] else "no"),
        ("since", moment(state.get("enrol_time"))),
        ("recovery codes left", state["recovery_codes_left"]),
        ("required here", "yes" if state["required"] else "no"),
    ]
    return table_of(("", ""), rows)
