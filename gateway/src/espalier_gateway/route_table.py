"""Finds the RPC of a method and path among all bindings."""

from collections.abc import Iterable

from espalier_gateway.contract import Binding
from espalier_gateway.errors import MethodNotAllowed, RouteNotFound


class RouteTable:
    """All bindings by number of path segments, the more literal templates first."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        self._by_length: dict[int, list[Binding]] = {}
        self._any_length: list[Binding] = []
        for binding in sorted(bindings, key=lambda each: each.template.specificity):
            if "**" in binding.template.text:
                self._any_length.append(binding)
            else:
                # Slashes within {name=a/*} count, as they do in the path.
                length = binding.template.text.count("/")
                self._by_length.setdefault(length, []).append(binding)

    def find(self, method: str, raw_path: str) -> tuple[Binding, dict[str, str]]:
        """The binding and the values of its path. Raises RouteNotFound or MethodNotAllowed."""
        wanted = "GET" if method == "HEAD" else method
        allowed: set[str] = set()
        for binding in (*self._by_length.get(raw_path.count("/"), ()), *self._any_length):
            values = binding.template.match(raw_path)
            if values is None:
                continue
            if binding.method == wanted:
                return binding, values
            allowed |= {binding.method, "HEAD"} if binding.method == "GET" else {binding.method}
        if allowed:
            raise MethodNotAllowed(method, allowed)
        raise RouteNotFound(raw_path)
