"""A user agent as people say it: "Firefox on Linux" instead of a line of version numbers."""

import re

# The first that matches names it: Edge and Opera also say Chrome, and Chrome also says Safari.
_PROGRAMS = (
    (r"Edg(?:e|A|iOS)?/", "Edge"),
    (r"OPR/", "Opera"),
    (r"Firefox/|FxiOS/", "Firefox"),
    (r"Chrome/|CriOS/", "Chrome"),
    (r"Safari/", "Safari"),
    (r"curl/", "curl"),
    (r"^espalier/", "espalier command line"),
    (r"grpc-python|grpc-python-asyncio", "Python over gRPC"),
    (r"grpc", "a gRPC client"),
    (r"python|httpx", "Python"),
)
_SYSTEMS = (
    (r"iPhone|iPad", "iOS"),
    (r"Android", "Android"),
    (r"Windows", "Windows"),
    (r"Mac OS X|Macintosh|macOS", "macOS"),
    (r"CrOS", "ChromeOS"),
    (r"Linux", "Linux"),
)


def device_of(agent: str) -> str:
    """The device in a few words; empty when nothing is known."""
    program, system = _first(_PROGRAMS, agent), _first(_SYSTEMS, agent)
    if program and system:
        return f"{program} on {system}"
    return program or system or agent.partition("/")[0][:40]


def _first(patterns: tuple[tuple[str, str], ...], agent: str) -> str:
    return next((name for pattern, name in patterns if re.search(pattern, agent, re.IGNORECASE)), "")
