"""Mail over TLS to a real SMTP server on loopback: both ways to encrypt, and no way round a wrong certificate."""

import socket
import ssl
from collections.abc import Callable, Iterator
from email.message import Message
from smtplib import SMTPException
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message as MessageHandler
from aiosmtpd.smtp import AuthResult, LoginPassword
from pydantic import SecretStr

from espalier_auth.registration.mail import Mailer
from espalier_auth.settings import AuthSettings
from espalier_common.infra.processes import free_port

from .certificates import Certificate

NAME, PASSWORD = "espalier", "a mailing secret"


class Inbox(MessageHandler):
    """Keeps what came."""

    def __init__(self) -> None:
        super().__init__()
        self.mails: list[Message] = []

    def handle_message(self, message: Message) -> None:
        self.mails.append(message)


@pytest.fixture
def certificate(make_certificate: Callable[[str], Certificate], monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """One for 127.0.0.1, which this machine trusts."""
    made = make_certificate("127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


class Server(Controller):
    """Starts when it takes a connection; the one that the package tries itself speaks no TLS."""

    def _trigger_server(self) -> None:
        socket.create_connection((self.hostname, self.port), timeout=60).close()


def login(_server: Any, _session: Any, _envelope: Any, mechanism: str, data: Any) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (NAME.encode(), PASSWORD.encode())
    return AuthResult(success=right, handled=False)


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Inbox, int]]]:
    """Factory of running servers: `security` and the certificate that each shows."""
    running: list[Controller] = []

    def start(security: str, certificate: Certificate) -> tuple[Inbox, int]:
        inbox, port = Inbox(), free_port()
        tls = certificate.context()
        options: dict[str, Any] = {
            "tls": {"ssl_context": tls},
            "starttls": {"tls_context": tls, "require_starttls": True},
        }
        server = Server(
            inbox,
            hostname="127.0.0.1",
            port=port,
            authenticator=login,
            auth_required=security == "starttls",  # through TLS from the first byte it cannot tell that there is any
            ready_timeout=120,
            auth_require_tls=security == "starttls",
            **options[security],
        )
        server.start()
        running.append(server)
        return inbox, port

    yield start
    for server in running:
        server.stop()


def mailer(port: int, security: str, **changes: Any) -> Mailer:
    values: dict[str, Any] = {
        "master_key": SecretStr("0123456789abcdef" * 4),
        "smtp_host": "127.0.0.1",
        "smtp_port": port,
        "smtp_security": security,
        "smtp_username": NAME,
        "smtp_password": SecretStr(PASSWORD),
        **changes,
    }
    return Mailer(AuthSettings.model_construct(**values))


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_mail_goes_encrypted_with_name_and_password(serve: Any, certificate: Certificate, security: str) -> None:
    inbox, port = serve(security, certificate)
    mailer(port, security).send("mia@example.org", subject="A link", text="https://espalier.example.org/x")
    (mail,) = inbox.mails
    assert (mail["To"], mail["Subject"]) == ("mia@example.org", "A link")


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_certificate_that_nobody_vouches_for_gets_no_mail(
    serve: Any, make_certificate: Any, certificate: Certificate, security: str
) -> None:
    inbox, port = serve(security, make_certificate("127.0.0.2"))
    with pytest.raises(ssl.SSLCertVerificationError):
        mailer(port, security).send("mia@example.org", subject="A link", text="secret")
    assert inbox.mails == []


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_certificate_for_another_host_gets_no_mail(
    serve: Any, make_certificate: Any, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    foreign = make_certificate("127.0.0.2")
    monkeypatch.setenv("SSL_CERT_FILE", str(foreign.file))
    inbox, port = serve(security, foreign)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"127\.0\.0\.1"):
        mailer(port, security).send("mia@example.org", subject="A link", text="secret")
    assert inbox.mails == []


def test_a_server_without_tls_is_told_neither_the_password_nor_the_mail(serve: Any, certificate: Certificate) -> None:
    inbox, port = Inbox(), free_port()
    server = Server(
        inbox, hostname="127.0.0.1", port=port, authenticator=login, auth_require_tls=False, ready_timeout=120
    )
    server.start()
    try:
        with pytest.raises(SMTPException):
            mailer(port, "starttls").send("mia@example.org", subject="A link", text="secret")
    finally:
        server.stop()
    assert inbox.mails == []


def test_a_wrong_password_sends_nothing(serve: Any, certificate: Certificate) -> None:
    inbox, port = serve("tls", certificate)
    with pytest.raises(SMTPException):
        mailer(port, "tls", smtp_password=SecretStr("wrong")).send("mia@example.org", subject="A link", text="x")
    assert inbox.mails == []
