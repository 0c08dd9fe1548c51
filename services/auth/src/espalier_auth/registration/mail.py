"""Mail, when a server for it is configured."""

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage

from espalier_auth.settings import AuthSettings

TIMEOUT = 15.0  # seconds


@dataclass(frozen=True)
class Mailer:
    """Sends one mail at a time over SMTP. Blocks."""

    settings: AuthSettings

    @property
    def is_configured(self) -> bool:
        """Whether mail can be sent at all."""
        return bool(self.settings.smtp_host)

    def send(self, to: str, *, subject: str, text: str) -> None:
        """Sends a mail of plain text. Raises OSError and SMTPException when the server does not take it."""
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self.settings.smtp_from, to, subject
        message.set_content(text, cte="7bit")  # else a long link would be broken over lines
        with self._connect() as server:
            if self.settings.smtp_security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if self.settings.smtp_username:
                server.login(self.settings.smtp_username, self.settings.smtp_password.get_secret_value())
            server.send_message(message)

    def _connect(self) -> smtplib.SMTP:
        host, port, security = self.settings.smtp_host, self.settings.smtp_port, self.settings.smtp_security
        if security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=TIMEOUT, context=ssl.create_default_context())
        return smtplib.SMTP(host, port, timeout=TIMEOUT)
