"""Moments as people type them."""

from datetime import UTC, datetime

from espalier_client.errors import UsageError


def read_moment(text: str, option: str) -> str:
    """The moment as the API takes it; empty stays empty. One without a zone is this machine's, a date its beginning.

    Raises UsageError, which names the option.
    """
    if not text:
        return ""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        message = f"{option} must be a date or a time such as 2026-12-01 or 2026-12-01T18:00+01:00, not {text!r}."
        raise UsageError(message) from error
    return moment.isoformat().replace("+00:00", "Z")
