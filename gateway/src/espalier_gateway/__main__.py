"""`python -m espalier_gateway`: reads the settings and serves."""

import asyncio
import sys

import uvloop
from pydantic import ValidationError
from pydantic_settings.exceptions import SettingsError as UnreadableSetting

from espalier_common.settings import SettingsError
from espalier_common.telemetry import configure_logging
from espalier_gateway.server import fail, serve
from espalier_gateway.settings import GatewaySettings


def main() -> int:
    """The exit code: 0 after a stop in good order, 78 when the settings do not allow a start."""
    try:
        settings = GatewaySettings()
        configure_logging("gateway", settings.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings))
    except ValidationError as error:
        found = (
            f"ESPALIER_{str(item['loc'][0]).upper()}: {item['msg']}" if item["loc"] else item["msg"]
            for item in error.errors(include_input=False)
        )
        return fail(f"The settings are wrong: {'; '.join(found)}")
    except (SettingsError, UnreadableSetting) as error:
        return fail(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
