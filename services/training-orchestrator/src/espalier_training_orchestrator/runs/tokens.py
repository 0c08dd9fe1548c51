"""Tokens of attempts. The database keeps only the hash; the token is derived again when a launch is repeated."""

import base64
import hashlib
import hmac


def attempt_token(secret: str, *, run_id: str, number: int, nonce: str) -> str:
    """The token of an attempt, the same each time: a launch that a crash cut off is repeated with the same files."""
    text = f"attempt/{run_id}/{number}/{nonce}".encode()
    return base64.urlsafe_b64encode(hmac.new(secret.encode(), text, hashlib.sha256).digest()).decode().rstrip("=")


def token_hash(token: str) -> str:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def matches(token: str, expected_hash: str) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(token_hash(token), expected_hash)
