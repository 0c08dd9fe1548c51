"""DatasetService: proto in, use case, proto out. One call is one transaction."""

from espalier.training_orchestrator.v1 import dataset_pb2, dataset_service_pb2, dataset_service_pb2_grpc
from espalier_common.db import Database
from espalier_common.identity import current_principal
from espalier_common.pagination import Paginator
from espalier_common.rpc.timestamps import timestamp
from espalier_training_orchestrator.datasets.models import Dataset, DatasetFile, DatasetFinding, DatasetVersion
from espalier_training_orchestrator.datasets.service import Datasets, NewFile
from espalier_training_orchestrator.wire import enum_name, enum_value


class DatasetsRpc(dataset_service_pb2_grpc.DatasetServiceServicer):
    """The servicer of DatasetService."""

    def __init__(self, database: Database, datasets: Datasets, paginator: Paginator) -> None:
        self._database = database
        self._datasets = datasets
        self._paginator = paginator

    def CreateDataset(self, request: dataset_service_pb2.CreateDatasetRequest, context: object) -> dataset_pb2.Dataset:
        wanted = request.dataset
        with self._database.transaction() as session:
            dataset = self._datasets.create(
                session, current_principal(), name=wanted.name, description=wanted.description
            )
            return dataset_to_proto(dataset)

    def GetDataset(self, request: dataset_service_pb2.GetDatasetRequest, context: object) -> dataset_pb2.Dataset:
        with self._database.transaction() as session:
            return dataset_to_proto(self._datasets.get(session, current_principal(), request.dataset_id))

    def ListDatasets(
        self, request: dataset_service_pb2.ListDatasetsRequest, context: object
    ) -> dataset_service_pb2.ListDatasetsResponse:
        with self._database.transaction() as session:
            page = self._datasets.list(
                session, current_principal(), name=request.name, page=self._paginator.read(request)
            )
            return dataset_service_pb2.ListDatasetsResponse(
                datasets=map(dataset_to_proto, page.items), next_page_token=page.next_page_token
            )

    def CreateDatasetVersion(
        self, request: dataset_service_pb2.CreateDatasetVersionRequest, context: object
    ) -> dataset_pb2.DatasetVersion:
        wanted = request.version
        files = [NewFile(split=file.split, upload_id=file.upload_id, name=file.name) for file in wanted.files]
        with self._database.transaction() as session:
            version = self._datasets.create_version(
                session,
                current_principal(),
                request.dataset_id,
                files=files,
                row_format=enum_name(dataset_pb2.DatasetFormat, "DATASET_FORMAT", wanted.format).lower(),
                skip_invalid_rows=wanted.skip_invalid_rows,
            )
            return version_to_proto(version)

    def GetDatasetVersion(
        self, request: dataset_service_pb2.GetDatasetVersionRequest, context: object
    ) -> dataset_pb2.DatasetVersion:
        with self._database.transaction() as session:
            return version_to_proto(self._datasets.get_version(session, current_principal(), request.version_id))

    def ListDatasetVersions(
        self, request: dataset_service_pb2.ListDatasetVersionsRequest, context: object
    ) -> dataset_service_pb2.ListDatasetVersionsResponse:
        with self._database.transaction() as session:
            page = self._datasets.list_versions(
                session, current_principal(), request.dataset_id, page=self._paginator.read(request)
            )
            return dataset_service_pb2.ListDatasetVersionsResponse(
                versions=map(version_to_proto, page.items), next_page_token=page.next_page_token
            )

    def ListDatasetFindings(
        self, request: dataset_service_pb2.ListDatasetFindingsRequest, context: object
    ) -> dataset_service_pb2.ListDatasetFindingsResponse:
        with self._database.transaction() as session:
            page = self._datasets.list_findings(
                session, current_principal(), request.version_id, page=self._paginator.read(request)
            )
            return dataset_service_pb2.ListDatasetFindingsResponse(
                findings=map(finding_to_proto, page.items), next_page_token=page.next_page_token
            )


def dataset_to_proto(dataset: Dataset) -> dataset_pb2.Dataset:
    """The message of a dataset."""
    return dataset_pb2.Dataset(
        id=dataset.id,
        name=dataset.name,
        description=dataset.description,
        owner_id=dataset.owner_id,
        latest_version=dataset.latest_version,
        create_time=timestamp(dataset.created_at),
    )


def version_to_proto(version: DatasetVersion) -> dataset_pb2.DatasetVersion:
    """The message of a version whose files are loaded."""
    return dataset_pb2.DatasetVersion(
        id=version.id,
        dataset_id=version.dataset_id,
        version=version.version,
        files=map(file_to_proto, version.files),
        format=enum_value(dataset_pb2.DatasetFormat, "DATASET_FORMAT", version.format),
        skip_invalid_rows=version.skip_invalid_rows,
        state=enum_value(dataset_pb2.DatasetVersionState, "DATASET_VERSION_STATE", version.state),
        message=version.message,
        owner_id=version.owner_id,
        create_time=timestamp(version.created_at),
    )


def file_to_proto(file: DatasetFile) -> dataset_pb2.DatasetFile:
    """The message of a file; the upload it came from is not told again."""
    return dataset_pb2.DatasetFile(
        split=file.split,
        name=file.name,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        rows=file.rows,
        accepted_rows=file.accepted_rows,
        rejected_rows=file.rejected_rows,
        warned_rows=file.warned_rows,
    )


def finding_to_proto(finding: DatasetFinding) -> dataset_pb2.DatasetFinding:
    """The message of a finding."""
    return dataset_pb2.DatasetFinding(
        file=finding.file,
        line=finding.line,
        pointer=finding.pointer,
        reason=finding.reason,
        severity=enum_value(dataset_pb2.Severity, "SEVERITY", finding.severity),
        expected=finding.expected,
        found=finding.found,
        message=finding.message,
    )
