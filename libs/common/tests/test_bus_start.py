"""The bus while it is not connected yet."""

import subprocess
import sys

# In a fresh interpreter, for nats must not be imported already.
SCRIPT = """
import asyncio, sys
from espalier_common.bus import EVENTS, Bus
from espalier_common.errors import Unavailable

async def main():
    bus = Bus("nats://127.0.0.1:1", name="auth")
    for call in (
        bus.publish("espalier.auth.v1.UserChanged", b"", msg_id="1"),
        bus.ensure_stream(EVENTS),
        bus.subscribe(EVENTS, durable="auth", subjects=["espalier.auth.v1.UserChanged"]),
    ):
        try:
            await call
        except Unavailable:
            print("unavailable", "nats" in sys.modules)

asyncio.run(main())
"""


def test_a_call_before_the_connection_leaves_the_import_of_the_client_to_the_thread_that_connects() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.splitlines() == ["unavailable False"] * 3, done.stderr
