"""The command `espalier`.

Exit codes: 0 done · 1 failed · 2 wrong command line · 3 not found · 4 not signed in · 5 not allowed ·
6 wrong input, or the thing's state does not allow it · 7 the platform does not answer · 130 interrupted.
"""

import errno
import os
import sys
from typing import Annotated

import typer

from espalier_client.commands import (
    api_keys,
    audit,
    banners,
    chat,
    datasets,
    demo,
    groups,
    invitations,
    models,
    platform,
    quotas,
    roles,
    runs,
    second_factor,
    sessions,
    settings,
    sign_in,
    statistics,
    usage,
    users,
)
from espalier_client.errors import ClientError
from espalier_client.output import print_error, stderr

INTERRUPTED = 130
EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong command line, 3 not found, 4 not signed in, 5 not allowed, "
    "6 wrong input or state, 7 the platform does not answer, 130 interrupted."
)


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Train, deploy and talk to your own language models.",
        epilog=EPILOG,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    machine, people, work = "This machine", "Sign-in", "Work"
    for command, panel in (
        (platform.up, machine),
        (platform.down, machine),
        (platform.status, machine),
        (platform.remove_second_factor, machine),
        (platform.reset_password, machine),
        (demo.demo, machine),
        (sign_in.login, people),
        (sign_in.logout, people),
        (sign_in.whoami, people),
        (sign_in.password, people),
        (usage.usage, people),
        (statistics.statistics, people),
        (chat.chat, work),
    ):
        app.command(rich_help_panel=panel)(command)
    for name, group in {"datasets": datasets, "runs": runs, "models": models}.items():
        app.add_typer(group.app, name=name, rich_help_panel=work)
    administration = {
        "second-factor": second_factor,
        "sessions": sessions,
        "api-keys": api_keys,
        "users": users,
        "invitations": invitations,
        "groups": groups,
        "roles": roles,
        "quotas": quotas,
        "settings": settings,
        "banners": banners,
        "audit": audit,
    }
    for name, group in administration.items():
        app.add_typer(group.app, name=name, rich_help_panel=people)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"espalier {version('espalier-client')}\n")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """All work is done by the commands."""


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs one command line; every way to fail ends as a sentence on standard error and an exit code."""
    command = typer.main.get_command(build())
    try:
        return int(command.main(arguments, prog_name="espalier", standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort):
        stderr().print("interrupted", style="dim")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has gone, as `head` does; Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    if isinstance(error, ClientError):
        print_error(error)
        return error.exit_code
    if isinstance(error, typer.TyperException):
        if hasattr(error, "show"):  # a wrong command line, with its usage
            error.show()
        return error.exit_code
    if os.environ.get("ESPALIER_DEBUG"):
        raise error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        print_error(ClientError(f"What was asked for could not be written: {error.strerror or error}."))
        return 1
    print_error(ClientError(f"{type(error).__name__}: {error} (a defect; ESPALIER_DEBUG=1 shows where)"))
    return 1


if __name__ == "__main__":
    main()
