"""Errors of the API, in the form that OpenAI clients read."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer other than 200: `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
        """Seconds after which the same request may succeed."""

    def body(self) -> dict[str, Any]:
        """The error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def type(self) -> str:
        """OpenAI's coarse kind."""
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"


def still_loading() -> ApiError:
    """The model is not in memory yet."""
    return ApiError("The model is still being loaded; try again soon.", status=503, code="loading", retry_after=2)


def too_many_waiting(limit: int) -> ApiError:
    """The queue is full."""
    return ApiError(
        f"{limit} requests are waiting already; try again later.", status=429, code="queue_full", retry_after=5
    )


def context_exceeded(*, prompt: int, context: int) -> ApiError:
    """The messages leave no room for an answer; both counts in tokens."""
    return ApiError(
        f"The messages are {prompt} tokens long and the model's context holds {context}, the answer included; "
        "shorten the messages or begin a new conversation.",
        code="context_length_exceeded",
        param="messages",
    )


def shutting_down() -> ApiError:
    """The server ends."""
    return ApiError("The server is shutting down.", status=503, code="shutting_down", retry_after=5)
