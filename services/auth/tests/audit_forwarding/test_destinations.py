"""What reaches a real receiver, and what counts as received."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from espalier_auth.audit.destinations import Destination, Outgoing, Undelivered, read_address
from espalier_auth.settings import AuthSettings

from .receivers import Collector, Ends, Webhook, serving


def events(count: int, **changes: Any) -> list[Outgoing]:
    values: dict[str, Any] = {
        "time": datetime(2025, 3, 1, 12, 0, 0, 5, UTC),
        "action": "espalier.auth.v1.UserService/UpdateUser",
        "result": "REFUSED",
        "json": '{"sequence":7,"actor_name":"Åda\\nGrace"}'.encode(),
    }
    return [Outgoing(sequence=number + 1, **{**values, **changes}) for number in range(count)]


def destination(url: str, *, secret: str = "", trusted: Any = None) -> Destination:
    return read_address(url, secret=secret, authorities=trusted.file if trusted else None).open()


@pytest.fixture
def certificate(make_certificate: Callable[[str], Any]) -> Any:
    return make_certificate("127.0.0.1")


@pytest.fixture(params=["syslog+tcp", "syslog+tls"])
def syslog(request: pytest.FixtureRequest, certificate: Any) -> Iterator[tuple[Collector, Destination]]:
    """A collector, and the way to it."""
    is_encrypted = request.param == "syslog+tls"
    collector = Collector(certificate.context() if is_encrypted else None)
    yield collector, destination(f"{request.param}://127.0.0.1:{collector.port}", trusted=certificate)
    collector.close()


def test_a_collector_gets_messages_of_rfc_5424_with_octet_counts(syslog: tuple[Collector, Destination]) -> None:
    collector, way = syslog
    way.send(events(3))
    assert len(collector.messages) == 3
    found = collector.messages[0]
    assert found.priority == 13 * 8 + 4  # log audit, warning
    assert found.time == "2025-03-01T12:00:00.000005Z"
    assert (found.host, found.application, found.kind) == (socket.gethostname(), "espalier", "UpdateUser")
    assert found.event == {"sequence": 7, "actor_name": "Åda\nGrace"}


def test_a_collector_that_hangs_up_after_all_of_it_has_all_of_it(syslog: tuple[Collector, Destination]) -> None:
    collector, way = syslog
    collector.ends = Ends.WITHOUT_GOODBYE
    way.send(events(200, json=b'"' + b"x" * 2000 + b'"'))
    assert len(collector.messages) == 200


@pytest.mark.parametrize("count", [1, 2000])
def test_what_a_collector_had_not_read_when_it_died_is_not_delivered(
    syslog: tuple[Collector, Destination], count: int
) -> None:
    collector, way = syslog
    collector.ends = Ends.KILLED
    with pytest.raises(Undelivered):
        way.send(events(count))


def test_a_collector_that_is_not_there_is_told() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        way = destination(f"syslog+tcp://127.0.0.1:{nobody_listens.getsockname()[1]}")
        with pytest.raises(Undelivered, match="ConnectionRefusedError"):
            way.send(events(1))


@pytest.mark.parametrize("names", ["another machine", "another authority"])
def test_nothing_is_said_to_who_cannot_prove_his_name(
    make_certificate: Callable[[str], Any], certificate: Any, names: str
) -> None:
    shown = make_certificate("127.0.0.9") if names == "another machine" else certificate
    trusted = shown if names == "another machine" else None
    collector = Collector(shown.context())
    way = destination(f"syslog+tls://127.0.0.1:{collector.port}", trusted=trusted)
    with pytest.raises(Undelivered, match="certificate verify failed"):
        way.send(events(1))
    collector.close()
    assert collector.messages == []


def test_a_webhook_gets_a_signed_batch_and_what_signs_in_there_is_in_a_header(webhook: Webhook, secret: str) -> None:
    way = destination(f"http://ada:p%40ss@127.0.0.1:{webhook.port}/in?token=t", secret=f"whsec_{secret}\n")
    way.send(events(2))
    [(path, headers)] = webhook.requests  # the signature was checked when it came
    assert path == "/in?token=t"
    assert headers["webhook-id"] == "audit-1-2"
    assert headers["authorization"] == "Basic YWRhOnBAc3M="
    assert "ada" not in headers["host"]
    assert webhook.batches == [{"events": [{"sequence": 7, "actor_name": "Åda\nGrace"}] * 2}]


@pytest.mark.parametrize("status", [302, 400, 503, None])
def test_only_a_good_answer_confirms(webhook: Webhook, secret: str, status: int | None) -> None:
    webhook.statuses = [status]
    way = destination(f"http://127.0.0.1:{webhook.port}/", secret=secret)
    with pytest.raises(Undelivered, match=str(status) if status else "RemoteProtocolError"):
        way.send(events(1))
    assert [path for path, _ in webhook.requests] == ["/"]  # a redirect is not followed


def test_a_webhook_over_tls_is_believed_by_its_certificate(webhook: Webhook, secret: str, certificate: Any) -> None:
    encrypted = Webhook(webhook.key, context=certificate.context())
    encrypted.may_answer.set()
    with serving(encrypted):
        url = f"https://127.0.0.1:{encrypted.port}/"
        with pytest.raises(Undelivered, match="certificate verify failed"):
            destination(url, secret=secret).send(events(1))
        destination(url, secret=secret, trusted=certificate).send(events(1))
    assert len(encrypted.batches) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audit_forward_url": "udp://127.0.0.1:514"}, "must be one of"),
        ({"audit_forward_url": "https://hidden:word@ex ample.org"}, "must be one of"),
        ({"audit_forward_url": "https://example.org:hidden-word/"}, "must be one of"),
        ({"audit_forward_url": "syslog+tls://example.org"}, "needs host and port"),
        ({"audit_forward_url": "syslog+tcp://hidden-word@example.org:601"}, "needs host and port"),
        ({"audit_forward_url": "https://example.org", "audit_forward_secret": "hidden-word"}, "24 random bytes"),
        ({"audit_forward_url": "https://example.org"}, "24 random bytes"),
        ({"audit_forward_url": "https://example.org", "audit_forward_secret_file": "/nowhere"}, "cannot be read"),
        ({"audit_forward_url": "syslog+tls://example.org:6514", "audit_forward_ca": "/nowhere"}, "no file of"),
        ({"audit_forward_url": "syslog+tls://example.org:6514", "audit_forward_ca": __file__}, "no file of"),
    ],
)
def test_a_wrong_setting_is_told_and_not_repeated(
    auth_values: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        AuthSettings(**auth_values, **change)
    assert "hidden" not in str(refused.value)


def test_what_may_be_secret_of_the_address_is_in_no_name_and_no_setting_shown(
    auth_values: dict[str, Any], secret: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(f"{secret}\n")
    url = "https://ada:hidden-word@example.org/hidden-token?key=hidden-key"
    settings = AuthSettings(**auth_values, audit_forward_url=url, audit_forward_secret_file=tmp_path / "secret")
    address = settings.audit_address()
    assert address is not None
    assert address.name == "https://example.org:443"
    assert "hidden" not in repr(settings)
    assert secret not in repr(settings)


@pytest.fixture
def auth_values() -> dict[str, Any]:
    """What auth needs besides."""
    return {"database_url": "postgresql+psycopg2://x", "master_key": bytes(range(32)).hex()}
