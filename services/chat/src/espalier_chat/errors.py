"""What can go wrong with sessions and messages; the tree stands in `espalier_common.errors`."""

from espalier_common.errors import FailedPrecondition, NotFound, Unavailable


class SessionNotFound(NotFound):
    reason = "SESSION_NOT_FOUND"


class MessageNotFound(NotFound):
    reason = "MESSAGE_NOT_FOUND"


class AnswerInProgress(FailedPrecondition):
    reason = "ANSWER_IN_PROGRESS"


class ChatStopping(Unavailable):
    reason = "CHAT_STOPPING"


class TurnRepeated(Exception):
    """The request was sent before: its answer is there, under this id, complete or not."""

    def __init__(self, message_id: str) -> None:
        super().__init__(message_id)
        self.message_id = message_id


class UpstreamError(Exception):
    """A model server failed; the message is a sentence for people and holds nothing of what the server sent."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
