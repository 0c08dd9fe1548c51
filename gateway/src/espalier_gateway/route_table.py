"""Finds the RPC of a method and path among all bindings."""

from collections.abc import Iterable

from espalier_gateway.contract import Binding
from espalier_gateway.errors import MethodNotAllowed, RouteNotFound


class RouteTable:
    """All bindings by the third part of their path and the number of its parts, the more literal templates first."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self._by_key: dict[tuple[str, int], list[Binding]] = {}
        self._others: list[Binding] = []
        for binding in sorted(bindings, key=lambda each: each.template.specificity):
            key = _key_of(binding.template.text)
            if "{" in key[0] or "*" in key[0] or "**" in binding.template.text:
                self._others.append(binding)
            else:
                self._by_key.setdefault(key, []).append(binding)

    def find(self, method: str, raw_path: str) -> tuple[Binding, dict[str, str]]:
        """The binding and the values of its path. Raises RouteNotFound or MethodNotAllowed."""
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        for binding in (*self._by_key.get(_key_of(raw_path), ()), *self._others):
            values = binding.template.match(raw_path)
            if values is None:
                continue
            if binding.method == wanted:
                return binding, values
            allowed |= {binding.method, "HEAD"} if binding.method == "GET" else {binding.method}
        if allowed:
            raise MethodNotAllowed(method, allowed)
        raise RouteNotFound(raw_path)


def _key_of(path: str) -> tuple[str, int]:
    """Of /api/v1/users/{id}/roles: `users` and 5. Slashes within {name=a/*} count, as they do in the path."""
    parts = path.split("/")
    return (parts[3] if len(parts) > 3 else ""), len(parts)
