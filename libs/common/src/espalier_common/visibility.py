"""Whose data a caller sees: with scope `all` everybody's, with `group` that of its groups' members, else its own.

What it may not see does not exist for it.
"""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import InstrumentedAttribute

from espalier_common.identity import Principal, Scope


class Reach(NamedTuple):
    """What of a caller decides whose data it sees. Selects that are built once for each caller are kept by it."""

    scope: Scope
    subject: str
    peers: frozenset[str]


def reach_of(principal: Principal) -> Reach:
    """The reach of a caller."""
    return Reach(principal.scope, principal.subject, principal.peers)


def visible(owner_id: InstrumentedAttribute[str], principal: Principal | Reach) -> ColumnElement[Any]:
    """The condition of every select on behalf of a caller; `owner_id` is the column that names the owner."""
    if principal.scope == "group" and principal.peers:
        return owner_id.in_(sorted(principal.peers | {principal.subject}))
    return true() if principal.scope == "all" else owner_id == principal.subject


def private(owner_id: InstrumentedAttribute[str], principal: Principal) -> ColumnElement[Any]:
    """The condition where data is its owner's alone, whatever the scope of the caller."""
    return owner_id == principal.subject


def reaches(owner_id: str, principal: Principal) -> bool:
    """Whether a thing that everybody sees is the caller's to change: its own, its groups', or any."""
    if principal.scope == "group" and owner_id in principal.peers:
        return True
    return principal.scope == "all" or owner_id == principal.subject
