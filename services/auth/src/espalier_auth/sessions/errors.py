"""What the list of one's sessions refuses."""

from espalier_common.errors import NotFound


class SessionNotFound(NotFound):
    reason = "SESSION_NOT_FOUND"

    def __init__(self, id: str) -> None:
        super().__init__("session", id)
