"""Where everything lies under `var/`."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from espalier_client.errors import PlatformError

# PostgreSQL writes its log ahead in files of 16 MiB, and a training needs room for its checkpoints.
LEAST_FREE_BYTES = 256 * 1024**2


@dataclass(frozen=True)
class Layout:
    """The directories of one platform; two platforms with different homes share nothing."""

    home: Path

    @property
    def run(self) -> Path:
        """What runs: a record a process, the ports."""
        return self.home / "run"

    @property
    def artifacts(self) -> Path:
        """The artifact store: datasets, runs, models."""
        return self.home / "artifacts"

    @property
    def secrets_file(self) -> Path:
        """All generated secrets, mode 600."""
        return self.home / "secrets" / "secrets.json"

    @property
    def admin_password_file(self) -> Path:
        """The first administrator's one-time password, written by auth, mode 600."""
        return self.home / "admin-password"

    @property
    def torch_extensions(self) -> Path:
        """What DeepSpeed compiles."""
        return self.home / "torch-extensions"

    def record_file(self, name: str) -> Path:
        """Record of a process."""
        return self.run / f"{name}.json"

    def log_file(self, name: str) -> Path:
        """Log of a process."""
        return self.home / "log" / f"{name}.log"

    def create(self) -> None:
        """Makes the directories. Raises PlatformError when they cannot be written to or the disk is full."""
        private = [self.run, self.home / "log", self.secrets_file.parent, self.artifacts, self.torch_extensions]
        with disk_errors(self.home):
            for directory in private:
                directory.mkdir(parents=True, exist_ok=True)
                # Others of the machine pass through the home, as PostgreSQL's user must, and see nothing of this.
                directory.chmod(0o700)
            for directory in (*private, self.home):
                with tempfile.TemporaryFile(dir=directory):
                    pass
        free = shutil.disk_usage(self.home).free
        if free < LEAST_FREE_BYTES:
            raise PlatformError(
                f"The disk of {self.home} has only {free >> 20} MiB free, and the platform needs at least "
                f"{LEAST_FREE_BYTES >> 20} MiB: make room, or set ESPALIER_HOME to a directory on another disk."
            )


def default_layout() -> Layout:
    """The platform of ESPALIER_HOME; else `var/` of the clone that this command was installed from."""
    if home := os.environ.get("ESPALIER_HOME"):
        return Layout(Path(home).expanduser().absolute())
    clone = Path(__file__).resolve().parents[5]
    if (clone / "constraints.txt").is_file():
        return Layout(clone / "var")
    raise PlatformError(
        "This espalier was not installed from a clone: set ESPALIER_HOME to the directory that shall hold the data."
    )


@contextmanager
def disk_errors(home: Path) -> Iterator[None]:
    """Turns what a disk refuses into one sentence that says what to do."""
    try:
        yield
    except OSError as error:
        where = error.filename or home
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise PlatformError(
                f"The disk of {home} is full: make room and run the same command again; nothing is lost."
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
            raise PlatformError(
                f"{where} cannot be written to ({error.strerror}): mend its rights, or set ESPALIER_HOME to a "
                "directory of your own."
            ) from error
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}:
            raise PlatformError(
                f"{where} cannot be made ({error.strerror}): set ESPALIER_HOME to a directory that can be made."
            ) from error
        raise PlatformError(
            f"{where}: {error.strerror or error}. Mend that, or set ESPALIER_HOME to a directory on another disk."
        ) from error
