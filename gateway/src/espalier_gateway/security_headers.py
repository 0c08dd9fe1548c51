"""Headers that every answer carries, and the content security policies of what the gateway serves."""

from typing import Final

from espalier_gateway.settings import GatewaySettings

API_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; worker-src 'self'; form-action 'self'; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# What a user uploaded is never run, wherever a browser shows it.
FILE_POLICY: Final = "default-src 'none'; sandbox; frame-ancestors 'none'"


def common_headers(settings: GatewaySettings) -> tuple[tuple[bytes, bytes], ...]:
    """Set on an answer unless the answer says otherwise."""
    headers = [
        (b"content-security-policy", API_POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=()"),
        (b"cache-control", b"no-store"),
    ]
    if settings.origin.startswith("https://"):
        headers.append((b"strict-transport-security", b"max-age=31536000; includeSubDomains"))
    return tuple(headers)
