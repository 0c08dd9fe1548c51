"""Whose data a caller sees: with scope `all` everybody's, else its own. What it may not see does not exist for it."""

from typing import Any

from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import InstrumentedAttribute

from espalier_common.identity import Principal


def visible(owner_id: InstrumentedAttribute[str], principal: Principal) -> ColumnElement[Any]:
    """The condition of every select on behalf of a caller."""
    return true() if principal.scope == "all" else owner_id == principal.subject
