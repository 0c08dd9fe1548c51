"""What chat adds to the settings of every service."""

from pydantic import Field

from espalier_common.settings import ServiceSettings


class ChatSettings(ServiceSettings):
    """How long answers live without readers, and how much of a model server chat puts up with."""

    chat_linger_seconds: float = Field(
        default=60,
        ge=0,
        le=86_400,
        description="an answer goes on for so long after its last reader left; 0: not at all",
    )
    chat_idle_seconds: float = Field(
        default=120,
        gt=0,
        description="a model server that sends nothing for so long has failed; covers the first token",
    )
    # As long as OpenAI's own clients wait.
    chat_completion_seconds: float = Field(
        default=600, gt=0, description="an answer over /v1 that is not streamed has failed after so long"
    )
    chat_max_answer_bytes: int = Field(
        default=8 << 20, gt=0, le=8 << 20, description="bytes of one answer in UTF-8; it ends as failed beyond"
    )
