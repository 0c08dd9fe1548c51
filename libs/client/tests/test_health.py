import json
import sys
import time
from pathlib import Path

import pytest

from espalier_client.errors import PlatformError
from espalier_client.local import health, table
from espalier_client.local.layout import Layout
from espalier_common.infra import processes


def test_a_service_that_ends_while_starting_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    told = json.dumps({"level": "error", "event": "cannot start", "error": "the settings are wrong"})
    for service in table.SERVICES:
        processes.start(
            [sys.executable, "-c", f"print({told!r})"],
            pid_file=layout.record_file(service.name),
            log_file=layout.log_file(service.name),
        )
    first = processes.read_record(layout.record_file(table.SERVICES[0].name))
    end = time.monotonic() + 120
    while processes.is_alive(first):
        assert time.monotonic() < end
        time.sleep(0.01)
    with pytest.raises(PlatformError) as caught:
        health.wait_for_all({service.name: 9 for service in table.SERVICES}, layout, deadline=5)
    assert "auth ended while starting" in caught.value.message
    assert "error cannot start: the settings are wrong" in caught.value.message
