"""What prompt refuses."""

from espalier_common.errors import AlreadyExists, InvalidArgument, NotFound


class PromptNotFound(NotFound):
    reason = "PROMPT_NOT_FOUND"


class PromptNameTaken(AlreadyExists):
    reason = "PROMPT_NAME_TAKEN"


class InvalidTemplate(InvalidArgument):
    """The text has a variable that cannot be read; each violation says where."""

    reason = "INVALID_TEMPLATE"
