"""What a transaction changes, as its entities tell: values before and after, by entity, masked."""

from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from espalier_common.audit.masking import is_masked, masked
from espalier_common.telemetry import get_logger

MAX_ENTITIES = 10

_log = get_logger(__name__)


class Changes:
    """Collects over all transactions of one call. `before` and `after` have the same shape: {"users/<id>": {…}}."""

    def __init__(self) -> None:
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.has_removed = False
        self._left_out = 0

    def after_all(self) -> dict[str, Any]:
        """`after`, with the number of entities that were too many."""
        return {**self.after, "[more]": self._left_out} if self._left_out else self.after

    def collect(self, session: Session) -> None:
        """Reads what the session has just flushed."""
        try:
            self._read(session)
        except Exception:
            # The change itself must not fail for what is told of it.
            _log.exception("what a change is about cannot be read")

    def _read(self, session: Session) -> None:
        # SQLAlchemy keeps the lists and the histories as they were before the flush until this event is over.
        for entity in session.new:
            if label := self._label(entity):
                self.after[label] = _columns(entity)
        for entity in session.deleted:
            if label := self._label(entity):
                self.before[label] = _columns(entity)
                self.has_removed = True
        for entity in session.dirty:
            if (found := _modified(entity)) and (label := self._label(entity)):
                old, new = found
                # Over several flushes the oldest value stays before, the newest is after.
                known = self.before.get(label)
                if known is not None or label not in self.after:
                    self.before[label] = old | (known or {})
                self.after.setdefault(label, {}).update(new)

    def _label(self, entity: object) -> str:
        if not getattr(entity, "AUDITED", True):  # what a service only counts by, which tells nobody anything
            return ""
        state: Any = inspect(entity)
        names = [state.mapper.get_property_by_column(column).key for column in state.mapper.primary_key]
        if any(is_masked(name) for name in names):
            return ""
        key = "/".join(str(state.dict.get(name, "")) for name in names)
        label = f"{state.mapper.local_table.name}/{key}"[:200]
        known = self.before.keys() | self.after.keys()
        if label not in known and len(known) >= MAX_ENTITIES:
            self._left_out += 1
            return ""
        return label


def _columns(entity: object) -> dict[str, Any]:
    state: Any = inspect(entity)
    loaded = {attribute.key: state.dict.get(attribute.key) for attribute in state.mapper.column_attrs}
    kept = {name: value for name, value in loaded.items() if value not in (None, "", [], {})}
    return _masked(entity, kept)


def _modified(entity: object) -> tuple[dict[str, Any], dict[str, Any]] | None:
    state: Any = inspect(entity)
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    for attribute in state.mapper.column_attrs:
        history = state.attrs[attribute.key].history
        if history.has_changes() and history.added:
            new[attribute.key] = history.added[0]
            if history.deleted:
                old[attribute.key] = history.deleted[0]
    return (_masked(entity, old), _masked(entity, new)) if new else None


def _masked(entity: object, values: dict[str, Any]) -> dict[str, Any]:
    # What everybody reads is no private word, whatever its name.
    public: frozenset[str] = getattr(entity, "PUBLIC", frozenset())
    found: dict[str, Any] = masked(values)
    return found | {name: masked(value) for name, value in values.items() if name in public}
