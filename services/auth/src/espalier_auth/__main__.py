"""Composition root: `python -m espalier_auth [serve|migrate|<one of COMMANDS>]`."""

from espalier_auth.assembly import COMMANDS, build
from espalier_auth.settings import AuthSettings
from espalier_common.rpc.server import run

if __name__ == "__main__":
    run(AuthSettings, build, commands=COMMANDS)
