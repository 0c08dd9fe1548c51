"""`python -m espalier_gateway`: reads the settings and serves."""

import asyncio
import sys

import uvloop

from espalier_common.settings import SettingsError, read_settings
from espalier_common.telemetry import configure_logging
from espalier_gateway.server import serve
from espalier_gateway.settings import GatewaySettings

EXIT_CONFIG = 78


def main() -> int:
    """The exit code: 0 after a stop in good order, 78 when the settings do not allow a start."""
    try:
        settings = read_settings(GatewaySettings)
        configure_logging("gateway", settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
