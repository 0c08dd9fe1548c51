"""What is an e-mail address here: enough to write to it, and nothing that could change the head of a mail."""

import re

from espalier_common.errors import FieldViolation

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", re.ASCII)


def find_email_violations(text: str, *, field: str) -> list[FieldViolation]:
    """What is wrong with an address; nothing with an empty one, which means none."""
    if not text.strip() or _ADDRESS.fullmatch(text.strip()):
        return []
    return [FieldViolation(field, "must be an e-mail address such as ann@example.org", "EMAIL")]
