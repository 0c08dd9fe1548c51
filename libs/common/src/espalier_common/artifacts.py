"""The artifact store: `file://` on one machine, anything fsspec knows (`s3://`) on a cluster.

Everything is named by its place in the store ("blobs/sha256/ab/ab…", "runs/<id>/model"), never by an absolute path,
so a store may move. Blobs are content-addressed and written under a temporary name, then renamed. All of it blocks.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, cast
from urllib.parse import unquote, urlsplit

from espalier_common.errors import FailedPrecondition, NotFound
from espalier_common.settings import SettingsError


@dataclass(frozen=True)
class Blob:
    """A stored content: `uri` is its place in the store, `size` in bytes, `sha256` in lower-case hex."""

    uri: str
    sha256: str
    size: int


class Files(Protocol):
    """The few operations of a store, on places that are checked already."""

    def write(self, place: str) -> Any:
        """Context manager of a binary file that appears under its name only when the block ends well."""

    def read(self, place: str) -> IO[bytes]: ...
    def size(self, place: str) -> int: ...
    def modified(self, place: str) -> datetime: ...
    def rename(self, source: str, target: str) -> None: ...
    def remove(self, place: str) -> None: ...
    def names(self, place: str) -> list[str]: ...


class ArtifactStore:
    """The store at a URL such as file:///var/lib/espalier/artifacts or s3://bucket/prefix."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files = open_files(url)

    def uri(self, *parts: str) -> str:
        """The place made of these parts. ValueError for parts that lead out of the store."""
        return _checked("/".join(parts))

    def put_stream(self, chunks: Iterable[bytes]) -> Blob:
        """Stores the chunks as a blob; the same content is stored once. Nothing is left behind when it fails."""
        digest = hashlib.sha256()
        size = 0
        incoming = f"incoming/{secrets.token_hex(16)}"
        with self._files.write(incoming) as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
        blob = Blob(blob_uri(digest.hexdigest()), digest.hexdigest(), size)
        if self.exists(blob.uri):
            self._files.remove(incoming)
        else:
            self._files.rename(incoming, blob.uri)
        return blob

    def put(self, uri: str, content: bytes) -> None:
        """Writes a small file at a place, whole or not at all."""
        with self._files.write(_checked(uri)) as file:
            file.write(content)

    def open(self, uri: str) -> IO[bytes]:
        """Opens for reading. Raises NotFound."""
        try:
            return self._files.read(_checked(uri))
        except FileNotFoundError:
            raise NotFound("artifact", uri) from None

    def exists(self, uri: str) -> bool:
        """True when there is a file at the place."""
        try:
            self._files.size(_checked(uri))
        except FileNotFoundError:
            return False
        return True

    def size(self, uri: str) -> int:
        """Size in bytes. Raises NotFound."""
        try:
            return self._files.size(_checked(uri))
        except FileNotFoundError:
            raise NotFound("artifact", uri) from None

    def delete(self, uri: str) -> None:
        """Removes a file or a whole folder; nothing happens when there is none."""
        with suppress(FileNotFoundError):
            self._files.remove(_checked(uri))

    def local_path(self, uri: str) -> Path:
        """Absolute path of the place, which need not exist. Raises FailedPrecondition when the store is not `file://`."""
        if not isinstance(self._files, LocalFiles):
            raise FailedPrecondition(f"The artifact store {self.url} has no local paths.")
        return self._files.root / _checked(uri)


def blob_uri(sha256: str) -> str:
    """Place of the blob with this hash."""
    return f"blobs/sha256/{sha256[:2]}/{sha256}"


def open_files(url: str) -> Files:
    """The operations behind a store's URL. Raises SettingsError for a URL that cannot be one."""
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.path.startswith("/"):
        return LocalFiles(Path(unquote(parts.path)))
    if parts.scheme in {"", "file"} or len(parts.scheme) == 1:
        raise SettingsError(f"ESPALIER_ARTIFACTS_URL must be file:///absolute/path or s3://bucket/prefix, not {url!r}.")
    return cast(Files, RemoteFiles(url))


def _checked(place: str) -> str:
    path = PurePosixPath(place)
    if not place or path.is_absolute() or ".." in path.parts or "\x00" in place or "\\" in place:
        raise ValueError(f"{place!r} is not a place in the artifact store")
    return str(path)


class LocalFiles:
    """A store in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def write(self, place: str) -> Iterator[IO[bytes]]:
        target = self.root / place
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, place: str) -> IO[bytes]:
        try:
            return (self.root / place).open("rb")
        except (IsADirectoryError, NotADirectoryError):
            raise FileNotFoundError(place) from None

    def size(self, place: str) -> int:
        path = self.root / place
        if not path.is_file():
            raise FileNotFoundError(place)
        return path.stat().st_size

    def modified(self, place: str) -> datetime:
        return datetime.fromtimestamp((self.root / place).stat().st_mtime, UTC)

    def rename(self, source: str, target: str) -> None:
        path = self.root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        (self.root / source).replace(path)
        sync_folder(path.parent)

    def remove(self, place: str) -> None:
        path = self.root / place
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()

    def names(self, place: str) -> list[str]:
        path = self.root / place
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []


class RemoteFiles:
    """A store behind fsspec. An object appears when its upload is completed, so writing needs no second name."""

    def __init__(self, url: str) -> None:
        # Costs 0.1 s and 10 MB; most services never open a store.
        from fsspec.core import url_to_fs

        self._fs: Any
        self._fs, self._root = url_to_fs(url)

    @contextmanager
    def write(self, place: str) -> Iterator[IO[bytes]]:
        with self._fs.transaction, self._fs.open(self._path(place), "wb") as file:
            yield file

    def read(self, place: str) -> IO[bytes]:
        return cast(IO[bytes], self._fs.open(self._path(place), "rb"))

    def size(self, place: str) -> int:
        info = self._fs.info(self._path(place))
        if info["type"] != "file":
            raise FileNotFoundError(place)
        return int(info["size"])

    def modified(self, place: str) -> datetime:
        moment: datetime = self._fs.modified(self._path(place))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

    def rename(self, source: str, target: str) -> None:
        self._fs.mv(self._path(source), self._path(target))

    def remove(self, place: str) -> None:
        self._fs.rm(self._path(place), recursive=True)

    def names(self, place: str) -> list[str]:
        try:
            return sorted(PurePosixPath(path).name for path in self._fs.ls(self._path(place), detail=False))
        except FileNotFoundError:
            return []

    def _path(self, place: str) -> str:
        return f"{self._root}/{place}"


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
