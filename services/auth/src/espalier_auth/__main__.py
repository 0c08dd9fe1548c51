"""Composition root: `python -m espalier_auth [serve|migrate|rotate-keys|rotate-master-key]`."""

from espalier_auth.assembly import ROTATE_KEYS, ROTATE_MASTER_KEY, build
from espalier_auth.settings import AuthSettings
from espalier_common.rpc.server import run

if __name__ == "__main__":
    run(AuthSettings, build, commands=[ROTATE_KEYS, ROTATE_MASTER_KEY])
