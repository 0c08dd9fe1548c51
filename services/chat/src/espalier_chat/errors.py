"""What can go wrong with sessions and messages; the tree stands in `espalier_common.errors`."""

from espalier_common.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable


class SessionNotFound(NotFound):
    reason = "SESSION_NOT_FOUND"


class MessageNotFound(NotFound):
    reason = "MESSAGE_NOT_FOUND"


class AnswerInProgress(FailedPrecondition):
    reason = "ANSWER_IN_PROGRESS"


class ChatStopping(Unavailable):
    reason = "CHAT_STOPPING"


class ModelNotFound(NotFound):
    reason = "MODEL_NOT_FOUND"


class ModelNotReady(Unavailable):
    """The model is known and does not answer now; without `retry_after` it will not by itself."""

    reason = "MODEL_NOT_READY"


class ModelBusy(Unavailable):
    reason = "MODEL_BUSY"


class ModelServerFailed(Unavailable):
    reason = "MODEL_SERVER_FAILED"


class InvalidCompletion(InvalidArgument):
    reason = "INVALID_COMPLETION"


class CompletionRefused(InvalidArgument):
    """The model server refused what the caller asked for, and says of which parameter; `metadata` holds its code."""

    reason = "COMPLETION_REFUSED"


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
