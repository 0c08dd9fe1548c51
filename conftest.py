"""How the tests are shared out over the processes that run them (`pytest -n 2`)."""

from typing import Any

import pytest

# Each of these shares one running platform, which is started once.
ON_ONE_PLATFORM = {"tests/e2e": "platform", "tests/security": "platform", "tests/console": "console"}

LONG = ("tests/e2e/", "tests/security/", "tests/console/", "trainer/", "services/training-orchestrator/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, or one process would wait for the other at the end."""
    items.sort(key=lambda item: next((n for n, start in enumerate(LONG) if item.nodeid.startswith(start)), len(LONG)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file stay in one process, for they share what the file sets up."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.split("::", maxsplit=1)[0]
            return ON_ONE_PLATFORM.get(path.rsplit("/", maxsplit=1)[0], path)

    return ByFile(config, log)
