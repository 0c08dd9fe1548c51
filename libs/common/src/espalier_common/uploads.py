"""Resumable uploads, shared by the gateway, which writes them, and by the services that take them over.

An upload is a folder `uploads/<id>/` of the artifact store with `meta.json` and its data: one growing file on one
machine, one object per appended part elsewhere. Its offset is the number of bytes that are safely stored.
"""

import fcntl
import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol, cast

import orjson

from espalier_common.artifacts import Files, LocalFiles, open_files, sync_folder
from espalier_common.errors import Conflict, FailedPrecondition, FieldViolation, InvalidArgument, NotFound
from espalier_common.identifiers import new_id, utc_now

MAX_FILENAME = 255
CHUNK_BYTES = 1 << 20


class UploadOffsetWrong(Conflict):
    reason = "UPLOAD_OFFSET_WRONG"


class UploadIncomplete(FailedPrecondition):
    reason = "UPLOAD_INCOMPLETE"


class UploadCorrupt(InvalidArgument):
    reason = "UPLOAD_CORRUPT"


class UploadTooLong(InvalidArgument):
    reason = "UPLOAD_TOO_LONG"


@dataclass(frozen=True)
class Upload:
    """An upload: `length` bytes announced, `offset` bytes stored.

    `sha256` is the announced hash (may be empty), and the true one once `complete`.
    """

    id: str
    owner: str
    filename: str
    length: int
    sha256: str
    created_at: str
    offset: int = 0
    complete: bool = False

    @property
    def created(self) -> datetime:
        """When it was begun."""
        return datetime.fromisoformat(self.created_at)


class UploadStore:
    """Uploads in the artifact store at `url`. Everything blocks."""

    def __init__(self, url: str) -> None:
        self._files = open_files(url)
        self._data: _Data = (
            _GrowingFile(self._files.root) if isinstance(self._files, LocalFiles) else _Parts(self._files)
        )

    def create(self, *, owner: str, filename: str, length: int, sha256: str = "") -> Upload:
        """Begins an upload of `length` bytes; `finish` checks `sha256` (hex) if given. Raises InvalidArgument."""
        _check_new(filename, length, sha256)
        upload = Upload(new_id(), owner, filename, length, sha256.lower(), utc_now().isoformat())
        self._data.create(upload.id)
        self._write(upload)
        return upload

    def get(self, upload_id: str) -> Upload:
        """The upload with its present offset. Raises NotFound."""
        try:
            with self._files.read(f"{_folder(upload_id)}/meta.json") as file:
                upload = Upload(**orjson.loads(file.read()))
        except FileNotFoundError:
            raise NotFound("upload", upload_id) from None
        return upload if upload.complete else replace(upload, offset=self._data.size(upload_id))

    def append(self, upload_id: str, *, offset: int, chunks: Iterable[bytes]) -> Upload:
        """Stores chunks from `offset` on, which must be the present one; returns when they are safe.

        Raises UploadOffsetWrong (metadata: offset), UploadTooLong (nothing of the chunks is kept), NotFound.
        When the chunks end with an error, what arrived until then is kept and the sender goes on from there.
        """
        with self._data.locked(upload_id):
            upload = self.get(upload_id)
            if upload.complete or upload.offset != offset:
                raise UploadOffsetWrong(
                    f"The upload goes on at byte {upload.offset}, not {offset}.",
                    metadata={"offset": str(upload.offset)},
                )
            self._data.append(upload_id, offset=offset, chunks=chunks, limit=upload.length)
            return self.get(upload_id)

    def finish(self, upload_id: str) -> Upload:
        """Checks length and hash and closes it. Idempotent. Raises UploadIncomplete, UploadCorrupt, NotFound."""
        with self._data.locked(upload_id):
            upload = self.get(upload_id)
            if upload.complete:
                return upload
            if upload.offset != upload.length:
                raise UploadIncomplete(f"{upload.offset} of {upload.length} bytes have arrived; send the rest first.")
            found = self._hash(upload_id)
            if upload.sha256 and upload.sha256 != found:
                raise UploadCorrupt(
                    f"The file arrived with SHA-256 {found}, announced was {upload.sha256}; upload it again.",
                    violations=[FieldViolation("sha256", "differs from the hash of what arrived", "UPLOAD_CORRUPT")],
                )
            done = replace(upload, sha256=found, complete=True)
            self._write(done)
            return done

    def open(self, upload_id: str) -> IO[bytes]:
        """The bytes stored so far. Raises NotFound."""
        self.get(upload_id)
        return self._data.open(upload_id)

    def chunks(self, upload_id: str) -> Iterator[bytes]:
        """The bytes stored so far, a mebibyte at a time."""
        with self.open(upload_id) as file:
            yield from iter(lambda: file.read(CHUNK_BYTES), b"")

    def delete(self, upload_id: str) -> None:
        """Removes it. Raises NotFound."""
        self.get(upload_id)
        self._files.remove(_folder(upload_id))

    def untouched(self, *, since: datetime) -> list[str]:
        """Ids of uploads of which nothing was written since, finished or not."""
        return [upload_id for upload_id in self._files.names("uploads") if self._is_untouched(upload_id, since)]

    def delete_untouched(self, upload_id: str, *, since: datetime) -> bool:
        """Removes an upload, unless something was written since; whether it did."""
        with suppress(NotFound), self._data.locked(upload_id):
            if self._is_untouched(upload_id, since):
                self._files.remove(_folder(upload_id))
                return True
        return False

    def _is_untouched(self, upload_id: str, since: datetime) -> bool:
        try:
            folder = _folder(upload_id)
            moments = [self._files.modified(f"{folder}/{name}") for name in self._files.names(folder)]
        except (FileNotFoundError, NotFound):  # it went meanwhile, or is none of ours
            return False
        return bool(moments) and max(moments) < since

    def _hash(self, upload_id: str) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks(upload_id):
            digest.update(chunk)
        return digest.hexdigest()

    def _write(self, upload: Upload) -> None:
        with self._files.write(f"{_folder(upload.id)}/meta.json") as file:
            file.write(orjson.dumps(asdict(upload)))


class _Data(Protocol):
    def create(self, upload_id: str) -> None: ...
    def size(self, upload_id: str) -> int: ...
    def append(self, upload_id: str, *, offset: int, chunks: Iterable[bytes], limit: int) -> None: ...
    def open(self, upload_id: str) -> IO[bytes]: ...
    @contextmanager
    def locked(self, upload_id: str) -> Iterator[None]: ...


class _GrowingFile:
    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, upload_id: str) -> Path:
        return self._root / _folder(upload_id) / "data"

    def create(self, upload_id: str) -> None:
        path = self._path(upload_id)
        path.parent.mkdir(parents=True)
        path.touch()
        sync_folder(path.parent)

    def size(self, upload_id: str) -> int:
        return self._path(upload_id).stat().st_size

    def append(self, upload_id: str, *, offset: int, chunks: Iterable[bytes], limit: int) -> None:
        with self._path(upload_id).open("r+b") as file:
            file.seek(offset)
            try:
                for chunk in chunks:
                    if file.tell() + len(chunk) > limit:
                        raise _too_long(limit)
                    file.write(chunk)
            except UploadTooLong:
                file.truncate(offset)
                raise
            finally:
                file.flush()
                os.fsync(file.fileno())

    def open(self, upload_id: str) -> IO[bytes]:
        return self._path(upload_id).open("rb")

    @contextmanager
    def locked(self, upload_id: str) -> Iterator[None]:
        try:
            with self._path(upload_id).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except FileNotFoundError:
            raise NotFound("upload", upload_id) from None


class _Parts:
    """Object stores cannot append: each append is an object named by its offset; two senders of one write the same."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def create(self, upload_id: str) -> None:
        """Nothing to prepare: the first part makes the folder."""

    def size(self, upload_id: str) -> int:
        parts = self._parts(upload_id)
        return int(parts[-1].rpartition("-")[2]) + self._files.size(parts[-1]) if parts else 0

    def append(self, upload_id: str, *, offset: int, chunks: Iterable[bytes], limit: int) -> None:
        end = offset
        with self._files.write(f"{_folder(upload_id)}/part-{offset:020d}") as file:
            for chunk in chunks:
                end += len(chunk)
                if end > limit:
                    raise _too_long(limit)
                file.write(chunk)

    def open(self, upload_id: str) -> IO[bytes]:
        return cast(IO[bytes], io.BufferedReader(_Concatenated(self._files, self._parts(upload_id))))

    @contextmanager
    def locked(self, upload_id: str) -> Iterator[None]:  # noqa: ARG002
        yield

    def _parts(self, upload_id: str) -> list[str]:
        folder = _folder(upload_id)
        return [f"{folder}/{name}" for name in self._files.names(folder) if name.startswith("part-")]


class _Concatenated(io.RawIOBase):
    def __init__(self, files: Files, places: list[str]) -> None:
        super().__init__()
        self._files = files
        self._places = iter(places)
        self._current: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            if self._current is None:
                place = next(self._places, None)
                if place is None:
                    return 0
                self._current = self._files.read(place)
            if data := self._current.read(len(buffer)):
                buffer[: len(data)] = data
                return len(data)
            self._current.close()
            self._current = None


def _folder(upload_id: str) -> str:
    # Ids are ours; anything else cannot be one, and must not become a path.
    if not upload_id or not all(letter in "0123456789abcdef-" for letter in upload_id):
        raise NotFound("upload", upload_id)
    return f"uploads/{upload_id}"


def _check_new(filename: str, length: int, sha256: str) -> None:
    violations = []
    if not filename or len(filename) > MAX_FILENAME or "/" in filename or "\x00" in filename:
        violations.append(FieldViolation("filename", f"must be a plain name of 1 to {MAX_FILENAME} characters"))
    if length < 0:
        violations.append(FieldViolation("length", "must be the number of bytes of the file"))
    if sha256 and (len(sha256) != 64 or not all(letter in "0123456789abcdefABCDEF" for letter in sha256)):
        violations.append(FieldViolation("sha256", "must be 64 hexadecimal digits"))
    if violations:
        raise InvalidArgument("The upload cannot begin: see the violations.", violations=violations)


def _too_long(limit: int) -> UploadTooLong:
    return UploadTooLong(
        f"More than the announced {limit} bytes arrived; begin the upload again with its true length.",
        violations=[FieldViolation("length", f"was announced as {limit}, but more bytes were sent", "UPLOAD_TOO_LONG")],
    )
