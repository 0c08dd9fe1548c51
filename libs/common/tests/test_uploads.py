"""Resumable uploads on disk and behind fsspec."""

import hashlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from espalier_common.errors import InvalidArgument, NotFound
from espalier_common.identifiers import utc_now
from espalier_common.uploads import UploadCorrupt, UploadIncomplete, UploadOffsetWrong, UploadStore, UploadTooLong


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> UploadStore:
    return UploadStore(f"file://{tmp_path}" if request.param == "file" else f"memory://{uuid.uuid4().hex}")


def test_parts_become_the_file(store: UploadStore) -> None:
    digest = hashlib.sha256(b"hello world").hexdigest()
    upload = store.create(owner="u1", filename="data.jsonl", length=11, sha256=digest.upper())
    assert store.append(upload.id, offset=0, chunks=[b"hel", b"lo"]).offset == 5
    assert store.get(upload.id).offset == 5
    assert store.append(upload.id, offset=5, chunks=[b" world"]).offset == 11
    done = store.finish(upload.id)
    assert (done.complete, done.sha256, done.owner, done.offset) == (True, digest, "u1", 11)
    assert store.finish(upload.id) == done
    with store.open(upload.id) as file:
        assert file.read() == b"hello world"
    assert b"".join(store.chunks(upload.id)) == b"hello world"


def test_a_wrong_offset_is_refused_with_the_right_one(store: UploadStore) -> None:
    upload = store.create(owner="u", filename="a", length=10)
    store.append(upload.id, offset=0, chunks=[b"abc"])
    with pytest.raises(UploadOffsetWrong) as caught:
        store.append(upload.id, offset=0, chunks=[b"abc"])
    assert caught.value.metadata["offset"] == "3"
    assert store.get(upload.id).offset == 3


def test_more_than_announced_is_refused_and_nothing_of_it_kept(store: UploadStore) -> None:
    upload = store.create(owner="u", filename="a", length=5)
    store.append(upload.id, offset=0, chunks=[b"abc"])
    with pytest.raises(UploadTooLong):
        store.append(upload.id, offset=3, chunks=[b"d", b"efg"])
    assert store.get(upload.id).offset == 3
    with pytest.raises(UploadIncomplete, match="3 of 5"):
        store.finish(upload.id)


def test_another_content_than_announced_is_refused(store: UploadStore) -> None:
    upload = store.create(owner="u", filename="a", length=3, sha256="0" * 64)
    store.append(upload.id, offset=0, chunks=[b"abc"])
    with pytest.raises(UploadCorrupt):
        store.finish(upload.id)
    assert not store.get(upload.id).complete


def test_an_empty_file_is_a_file(store: UploadStore) -> None:
    upload = store.create(owner="u", filename="empty", length=0)
    assert store.finish(upload.id).complete
    assert b"".join(store.chunks(upload.id)) == b""


def test_nothing_is_appended_to_a_finished_upload(store: UploadStore) -> None:
    upload = store.create(owner="u", filename="a", length=0)
    store.finish(upload.id)
    with pytest.raises(UploadOffsetWrong):
        store.append(upload.id, offset=0, chunks=[b"x"])


def test_a_deleted_upload_is_gone(store: UploadStore) -> None:
    upload = store.create(owner="u", filename="a", length=1)
    store.delete(upload.id)
    with pytest.raises(NotFound):
        store.get(upload.id)


@pytest.mark.parametrize("upload_id", ["", "no", "../../etc", "a/b", "0" * 36, "."])
def test_no_id_leads_anywhere_else(store: UploadStore, upload_id: str) -> None:
    for call in (store.get, store.finish, store.open, store.delete):
        with pytest.raises(NotFound):
            call(upload_id)
    with pytest.raises(NotFound):
        store.append(upload_id, offset=0, chunks=[])


def test_everything_wrong_with_a_new_upload_is_told_at_once(store: UploadStore) -> None:
    with pytest.raises(InvalidArgument) as caught:
        store.create(owner="u", filename="a/b", length=-1, sha256="xyz")
    assert {violation.field for violation in caught.value.violations} == {"filename", "length", "sha256"}


def test_what_arrived_before_the_sender_went_away_is_kept(tmp_path: Path) -> None:
    store = UploadStore(f"file://{tmp_path}")

    def breaking() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionError("gone")

    upload = store.create(owner="u", filename="a", length=6)
    with pytest.raises(ConnectionError):
        store.append(upload.id, offset=0, chunks=breaking())
    assert store.get(upload.id).offset == 3


def test_two_senders_of_one_part_do_not_mix(tmp_path: Path) -> None:
    store = UploadStore(f"file://{tmp_path}")
    upload = store.create(owner="u", filename="a", length=4)
    both = threading.Barrier(2)

    def send(content: bytes) -> bool:
        both.wait()
        try:
            store.append(upload.id, offset=0, chunks=[content[:2], content[2:]])
        except UploadOffsetWrong:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(send, [b"aaaa", b"bbbb"]))
    assert sorted(results) == [False, True]
    assert b"".join(store.chunks(upload.id)) in {b"aaaa", b"bbbb"}


def test_only_what_nobody_wrote_to_for_long_is_removed(store: UploadStore) -> None:
    begun, finished = (store.create(owner="u", filename=name, length=3) for name in ("begun", "finished"))
    store.append(finished.id, offset=0, chunks=[b"abc"])
    store.finish(finished.id)
    earlier, later = utc_now() - timedelta(hours=1), utc_now() + timedelta(hours=1)
    assert store.untouched(since=earlier) == []
    assert not store.delete_untouched(begun.id, since=earlier)
    assert set(store.untouched(since=later)) == {begun.id, finished.id}
    for upload in (begun, finished):
        assert store.delete_untouched(upload.id, since=later)
        assert not store.delete_untouched(upload.id, since=later)
        with pytest.raises(NotFound):
            store.get(upload.id)
    assert store.untouched(since=later) == []
