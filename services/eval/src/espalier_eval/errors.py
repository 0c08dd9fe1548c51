"""What eval refuses."""

from espalier_common.errors import InvalidArgument, NotFound


class EvaluationNotFound(NotFound):
    reason = "EVALUATION_NOT_FOUND"


class TextTooLong(InvalidArgument):
    """Scoring compares every word with every other: a text has fewer words than it may have characters."""

    reason = "TEXT_TOO_LONG"
