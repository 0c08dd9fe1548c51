"""What the pages and files of the gateway may load and call."""

import pytest

from espalier_gateway.security_headers import API_POLICY, FILE_POLICY, PAGE_POLICY


@pytest.mark.parametrize("policy", [PAGE_POLICY, API_POLICY, FILE_POLICY])
def test_pages_speak_to_nobody_but_the_gateway(policy: str) -> None:
    directives = {name: set(sources) for name, *sources in (part.split() for part in policy.split(";"))}

    assert directives["default-src"] == {"'none'"}
    assert directives["frame-ancestors"] == {"'none'"}
    # data: shows pictures that are in the page already; there is no scheme, host, wildcard or unsafe-… beside.
    assert set().union(*directives.values()) <= {"'none'", "'self'", "data:"}
    assert [name for name, sources in directives.items() if "data:" in sources] in ([], ["img-src"])
