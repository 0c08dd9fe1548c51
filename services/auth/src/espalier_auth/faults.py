"""All that is wrong with a request, from several checks, told at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from espalier_common.errors import InvalidArgument


class Faults:
    """Takes what checks raise of InvalidArgument, and raises it together; every other refusal goes on at once."""

    def __init__(self) -> None:
        self._found: list[InvalidArgument] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Around one check."""
        try:
            yield
        except InvalidArgument as error:
            self._found.append(error)

    def refuse(self) -> None:
        """Raises the first of the errors, with the violations of all. Does nothing where none was found."""
        if not self._found:
            return
        first = self._found[0]
        first.violations = tuple(each for error in self._found for each in error.violations)
        raise first
