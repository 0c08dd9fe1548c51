"""Datasets: checked rows, exact counts, nothing silently dropped, nobody else's seen."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

import grpc
import pytest
from sqlalchemy import update

from espalier.training_orchestrator.v1 import dataset_pb2 as pb
from espalier.training_orchestrator.v1 import dataset_service_pb2 as rpc
from espalier_common.db import utc_now
from espalier_common.errors import NotFound
from espalier_common.rpc.status import from_rpc_error
from espalier_common.uploads import UploadStore
from espalier_training_orchestrator.datasets.housekeeping import UploadHousekeeping
from espalier_training_orchestrator.datasets.models import DatasetFile, DatasetVersion, VersionState

GOOD = json.dumps({"instruction": "Say hello.", "output": "Hello."}).encode() + b"\n"
OTHER = json.dumps({"instruction": "Say bye.", "output": "Bye."}).encode() + b"\n"
BROKEN = json.dumps({"instruction": "Say nothing."}).encode() + b"\n"


def file_of(upload_id: str, split: str = "train", name: str = "") -> pb.DatasetFile:
    return pb.DatasetFile(split=split, upload_id=upload_id, name=name)


async def findings_of(orchestrator: Any, version: pb.DatasetVersion) -> list[pb.DatasetFinding]:
    request = rpc.ListDatasetFindingsRequest(version_id=version.id)
    return list((await orchestrator.datasets().ListDatasetFindings(request)).findings)


async def test_good_rows_make_a_ready_version_with_exact_counts(orchestrator: Any) -> None:
    version = await orchestrator.dataset_version(file_of(orchestrator.upload(GOOD + OTHER + GOOD)))
    assert version.state == pb.DATASET_VERSION_STATE_READY
    assert version.format == pb.DATASET_FORMAT_ALPACA
    (file,) = version.files
    assert (file.rows, file.accepted_rows, file.rejected_rows, file.warned_rows) == (3, 3, 0, 1)
    (duplicate,) = await findings_of(orchestrator, version)
    assert (duplicate.line, duplicate.reason, duplicate.severity) == (3, "DUPLICATE", pb.SEVERITY_WARNING)


async def test_a_broken_row_rejects_the_version_and_is_named_with_line_field_and_expectation(orchestrator: Any) -> None:
    version = await orchestrator.dataset_version(file_of(orchestrator.upload(GOOD + BROKEN)))
    assert version.state == pb.DATASET_VERSION_STATE_REJECTED
    assert "1 row of 2 cannot be used" in version.message
    (finding,) = await findings_of(orchestrator, version)
    assert (finding.file, finding.line, finding.pointer, finding.reason) == ("train", 2, "/output", "MISSING_FIELD")
    assert "output" in finding.expected
    assert "line 2" in finding.message


async def test_broken_rows_are_left_out_only_when_asked_and_stay_counted(orchestrator: Any) -> None:
    version = await orchestrator.dataset_version(
        file_of(orchestrator.upload(GOOD + BROKEN + OTHER)), skip_invalid_rows=True
    )
    assert version.state == pb.DATASET_VERSION_STATE_READY
    assert "1 row left out" in version.message
    (file,) = version.files
    assert (file.rows, file.accepted_rows, file.rejected_rows) == (3, 2, 1)
    with orchestrator.database.transaction() as session:
        stored = orchestrator.assembly.datasets.get_version(session, _everybody(), version.id).files[0]
    rows = (orchestrator.artifacts / stored.training_uri).read_text().splitlines()
    assert stored.training_format == "openai"
    assert [json.loads(row)["messages"][1]["content"] for row in rows] == ["Hello.", "Bye."]


async def test_findings_are_capped_but_counts_are_not(start: Any) -> None:
    orchestrator = await start(findings_per_file=3)
    version = await orchestrator.dataset_version(file_of(orchestrator.upload(GOOD + BROKEN * 10)))
    assert len(await findings_of(orchestrator, version)) == 3
    assert version.files[0].rejected_rows == 10


async def test_a_plain_text_file_gives_its_paragraphs(orchestrator: Any) -> None:
    content = b"{ not JSON,\nbut text }\n\nSecond paragraph.\n"
    version = await orchestrator.dataset_version(file_of(orchestrator.upload(content, filename="book.txt")))
    assert version.format == pb.DATASET_FORMAT_TEXT
    assert version.files[0].accepted_rows == 2


async def test_files_that_are_no_rows_at_all_are_rejected_with_a_sentence(orchestrator: Any) -> None:
    version = await orchestrator.dataset_version(file_of(orchestrator.upload(b'{"what": 1}\n', filename="odd.jsonl")))
    assert version.state == pb.DATASET_VERSION_STATE_REJECTED
    assert "odd.jsonl" in version.message


async def test_everything_wrong_with_the_files_is_told_at_once(orchestrator: Any) -> None:
    stub = orchestrator.datasets()
    dataset = await stub.CreateDataset(rpc.CreateDatasetRequest(dataset=pb.Dataset(name="wrong")))
    foreign = orchestrator.upload(GOOD, owner="somebody else")
    unknown = "018f6e1c-0b0a-7c3e-9d5a-0242ac120002"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateDatasetVersion(
            rpc.CreateDatasetVersionRequest(
                dataset_id=dataset.id,
                version=pb.DatasetVersion(files=[file_of(foreign), file_of(unknown), file_of(unknown, "validation")]),
            )
        )
    error: Any = from_rpc_error(caught.value)
    reasons = [(violation.field, violation.reason) for violation in error.violations]
    assert reasons == [
        ("version.files[0].upload_id", "UPLOAD_NOT_FOUND"),
        ("version.files[1].name", "INVALID"),
        ("version.files[1].upload_id", "UPLOAD_NOT_FOUND"),
        ("version.files[2].upload_id", "UPLOAD_NOT_FOUND"),
    ]


async def test_a_check_that_a_crash_cut_off_is_done_by_the_next_process(orchestrator: Any, start: Any) -> None:
    stub = orchestrator.datasets()
    dataset = await stub.CreateDataset(rpc.CreateDatasetRequest(dataset=pb.Dataset(name="crash")))
    request = rpc.CreateDatasetVersionRequest(
        dataset_id=dataset.id, version=pb.DatasetVersion(files=[file_of(orchestrator.upload(GOOD))])
    )
    version = await stub.CreateDatasetVersion(request)
    assert version.state == pb.DATASET_VERSION_STATE_VALIDATING
    again = await start()
    await again.check_datasets()
    found = await stub.GetDatasetVersion(rpc.GetDatasetVersionRequest(version_id=version.id))
    assert found.state == pb.DATASET_VERSION_STATE_READY


async def test_rows_that_our_check_chokes_on_do_not_keep_others_waiting(
    orchestrator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choke(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect of ours")

    with monkeypatch.context() as patch:
        patch.setattr("espalier_training_orchestrator.datasets.inspection.Inspector.inspect", choke)
        version = await orchestrator.dataset_version(file_of(orchestrator.upload(GOOD)))
        assert version.state == pb.DATASET_VERSION_STATE_VALIDATING
    good = await orchestrator.dataset_version(file_of(orchestrator.upload(GOOD)))
    assert good.state == pb.DATASET_VERSION_STATE_READY
    request = rpc.GetDatasetVersionRequest(version_id=version.id)
    assert (await orchestrator.datasets().GetDatasetVersion(request)).state == pb.DATASET_VERSION_STATE_READY
    with monkeypatch.context() as patch:
        patch.setattr("espalier_training_orchestrator.datasets.inspection.Inspector.inspect", choke)
        bad = await orchestrator.dataset_version(file_of(orchestrator.upload(GOOD)))
        for _ in range(2):
            await orchestrator.check_datasets()
    request = rpc.GetDatasetVersionRequest(version_id=bad.id)
    assert (await orchestrator.datasets().GetDatasetVersion(request)).state == pb.DATASET_VERSION_STATE_REJECTED


async def test_a_foreign_dataset_is_answered_like_one_that_never_was(orchestrator: Any, people: Any) -> None:
    version = await orchestrator.dataset_version(file_of(orchestrator.upload(GOOD)))
    bob = orchestrator.datasets(people[1])
    assert not (await bob.ListDatasets(rpc.ListDatasetsRequest())).datasets
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await bob.GetDatasetVersion(rpc.GetDatasetVersionRequest(version_id=version.id))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    everybody = orchestrator.datasets(people[1], scope="all")
    assert (await everybody.ListDatasets(rpc.ListDatasetsRequest())).datasets


async def test_a_name_is_taken_once_by_each_owner(orchestrator: Any, people: Any) -> None:
    request = rpc.CreateDatasetRequest(dataset=pb.Dataset(name="same"))
    await orchestrator.datasets().CreateDataset(request)
    await orchestrator.datasets(people[1]).CreateDataset(request)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await orchestrator.datasets().CreateDataset(request)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


def _everybody() -> Any:
    from espalier_common.identity import Principal

    return Principal("admin", "admin", "user", (), frozenset({"*"}), "all")


async def test_an_upload_of_which_no_dataset_is_made_is_removed_and_one_that_waits_for_its_check_is_not(
    orchestrator: Any,
) -> None:
    used, unused = orchestrator.upload(GOOD), orchestrator.upload(OTHER)
    store = UploadStore(orchestrator.settings.artifacts_url)
    version = await orchestrator.dataset_version(file_of(orchestrator.upload(GOOD)))
    with orchestrator.database.transaction() as session:
        waiting = session.get_one(DatasetVersion, version.id)
        waiting.state = VersionState.VALIDATING
        session.execute(update(DatasetFile).where(DatasetFile.version_id == version.id).values(upload_id=used))
    keep = UploadHousekeeping(orchestrator.database, uploads=store, kept=timedelta(hours=24))
    assert keep.remove_unused() == 0
    two_days_ago = (utc_now() - timedelta(days=2)).timestamp()
    for path in (orchestrator.artifacts / "uploads").rglob("*"):
        os.utime(path, (two_days_ago, two_days_ago))
    assert keep.remove_unused() == 1
    assert store.get(used)
    with pytest.raises(NotFound):
        store.get(unused)
