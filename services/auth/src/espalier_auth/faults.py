"""All that is wrong with a request, told at once."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from espalier_common.errors import FieldViolation, InvalidArgument


def refuse_invalid(found: Sequence[FieldViolation], error: type[InvalidArgument], *, what: str = "request") -> None:
    """Raises the error with all that was found, the first in its sentence. Does nothing where none was."""
    if found:
        raise error(f"The {what} is not valid: {found[0].field} {found[0].description}.", violations=found)


def find_mask_violations(paths: Iterable[str], known: Sequence[str]) -> list[FieldViolation]:
    """What is wrong with an update mask of these paths, where the known ones can change."""
    named, names = set(paths), ", ".join(known)
    if not named:
        return [FieldViolation("update_mask", f"names no field; name some of {names}", "MASK")]
    return [
        FieldViolation("update_mask", f"names {path!r}; only {names} can change", "MASK")
        for path in sorted(named.difference(known))
    ]


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
