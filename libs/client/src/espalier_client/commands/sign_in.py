"""login, logout, whoami, password."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from espalier_client.api import Api
from espalier_client.errors import Unauthenticated, UsageError
from espalier_client.output import Output, OutputFormat, emit, note, table_of
from espalier_client.session import Server, open_api

PasswordFile = Annotated[
    Path | None, typer.Option("--password-file", help="File that holds the password; `-` reads standard input.")
]


def login(
    username: Annotated[str, typer.Option("--username", "-u", envvar="ESPALIER_USERNAME", help="Who signs in.")] = "",
    password_file: PasswordFile = None,
    code: Annotated[
        str, typer.Option("--code", envvar="ESPALIER_CODE", help="Code of the second factor, or a recovery code.")
    ] = "",
    server: Server = "",
) -> None:
    """Sign in. The password is asked for, or comes from --password-file or ESPALIER_PASSWORD."""
    with open_api(server) as api:
        name = username or _ask("Username")
        answer = _sign_in(api, name, read_password(password_file, "Password"), code=code)
        note(f"Signed in at {api.server} as {name}.")
        if answer.get("second_factor_enrolment_required"):
            note("This platform asks for a second factor before anything else: run `espalier second-factor enrol`.")
        if answer.get("password_change_required"):
            note("This password was made for you: change it with `espalier password`.")


def logout(server: Server = "") -> None:
    """End the session and forget its tokens."""
    with open_api(server) as api:
        ended = api.logout()
        note(f"Signed out of {api.server}." if ended else f"Nobody was signed in at {api.server}.")


def whoami(output: Output = OutputFormat.TABLE, server: Server = "") -> None:
    """Say who is signed in and what he may do."""
    with open_api(server) as api:
        emit(api.get("/api/v1/me"), output, table=_me)


def password(
    password_file: Annotated[Path | None, typer.Option(help="File with the password used until now.")] = None,
    new_password_file: Annotated[Path | None, typer.Option(help="File with the new password.")] = None,
    server: Server = "",
) -> None:
    """Change your own password; every other session of yours ends."""
    with open_api(server) as api:
        username = api.get("/api/v1/me")["user"]["username"]
        current = read_password(password_file, "Current password")
        new = read_password(new_password_file, "New password", variable="ESPALIER_NEW_PASSWORD", confirm=True)
        api.post("/api/v1/me/password", {"current_password": current, "new_password": new})
        _sign_in(api, username, new)
        note("The password is changed.")


def read_code(question: str = "Code of your second factor") -> str:
    """A code that is typed, or the next line of standard input."""
    code = str(typer.prompt(question, err=True)) if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not code:
        raise UsageError(f"{question}: nobody is here to type it; write it into standard input.")
    return code


def _sign_in(api: Api, username: str, word: str, *, code: str = "") -> Any:
    try:
        return api.login(username, word, code=code)
    except Unauthenticated as error:
        if error.reason != "SECOND_FACTOR_REQUIRED" or not sys.stdin.isatty():
            raise
    return api.login(username, word, code=read_code())


def read_password(
    file: Path | None, question: str, *, variable: str = "ESPALIER_PASSWORD", confirm: bool = False
) -> str:
    """A password out of a file, the environment, or a question that does not show what is typed."""
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The password file {file} cannot be read: {error}.") from error
        return text.rstrip("\r\n")
    if value := os.environ.get(variable):
        return value
    if not sys.stdin.isatty():
        raise UsageError(f"{question}: give it by a --…password-file option or {variable}; nobody is here to type it.")
    return str(typer.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True))


def _ask(question: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError("Who signs in? Give --username or ESPALIER_USERNAME.")
    return str(typer.prompt(question, err=True))


def _me(me: dict[str, Any]) -> Any:
    user = me["user"]
    rows = [
        ("user", user["username"]),
        ("id", user["id"]),
        ("roles", ", ".join(user["roles"])),
        (
            "reaches",
            {"own": "own data", "group": "the groups' data", "all": "everybody's data"}.get(me["scope"], me["scope"]),
        ),
        ("may", ", ".join(me["permissions"])),
    ]
    return table_of(("", ""), rows)
