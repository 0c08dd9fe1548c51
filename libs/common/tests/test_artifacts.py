"""The artifact store on disk and behind fsspec."""

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from espalier_common.artifacts import ArtifactStore, blob_uri
from espalier_common.errors import FailedPrecondition, NotFound
from espalier_common.settings import SettingsError


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "file":
        return ArtifactStore(f"file://{tmp_path}/a%20store")
    return ArtifactStore(f"memory://{uuid.uuid4().hex}")


def test_content_is_found_under_its_hash(store: ArtifactStore) -> None:
    blob = store.put_stream([b"hello"] * 1000)
    assert blob.sha256 == hashlib.sha256(b"hello" * 1000).hexdigest()
    assert blob.uri == blob_uri(blob.sha256)
    assert blob.size == store.size(blob.uri) == 5000
    with store.open(blob.uri) as file:
        assert file.read() == b"hello" * 1000
    assert store.put_stream([b"hello" * 1000]) == blob


def test_a_stream_that_breaks_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        store.put_stream(broken())
    assert not store.exists(blob_uri(hashlib.sha256(b"half").hexdigest()))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_small_files_are_written_whole_and_removed(store: ArtifactStore) -> None:
    uri = store.uri("runs", "1", "run.yaml")
    store.put(uri, b"a: 1")
    store.put(uri, b"a: 2")
    assert store.exists(uri)
    store.delete("runs/1")
    store.delete("runs/1")
    assert not store.exists(uri)


def test_what_is_missing_is_not_found(store: ArtifactStore) -> None:
    with pytest.raises(NotFound):
        store.open("no/such")
    with pytest.raises(NotFound):
        store.size("no")


def test_a_folder_is_no_artifact(store: ArtifactStore) -> None:
    store.put("folder/file", b"x")
    assert not store.exists("folder")


@pytest.mark.parametrize("place", ["", "/etc/passwd", "../x", "a/../../x", "a\x00b", "a\\b"])
def test_no_place_leads_out_of_the_store(store: ArtifactStore, place: str) -> None:
    with pytest.raises(ValueError, match="not a place"):
        store.open(place)


def test_local_paths_exist_on_disk_alone(tmp_path: Path) -> None:
    assert ArtifactStore(f"file://{tmp_path}").local_path("runs/1") == tmp_path / "runs" / "1"
    with pytest.raises(FailedPrecondition):
        ArtifactStore("memory://x").local_path("runs/1")


@pytest.mark.parametrize("url", ["", "/var/artifacts", "file://relative", "artifacts"])
def test_a_url_that_is_none_is_told_with_its_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="ESPALIER_ARTIFACTS_URL"):
        ArtifactStore(url)
