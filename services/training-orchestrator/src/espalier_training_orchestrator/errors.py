"""What this service refuses, one line each. A foreign id and an unknown one are answered alike."""

from espalier_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unauthenticated


class DatasetNotFound(NotFound):
    reason = "DATASET_NOT_FOUND"


class DatasetVersionNotFound(NotFound):
    reason = "DATASET_VERSION_NOT_FOUND"


class DatasetNameTaken(AlreadyExists):
    reason = "DATASET_NAME_TAKEN"


class DatasetFilesInvalid(InvalidArgument):
    reason = "DATASET_FILES_INVALID"


class RunNotFound(NotFound):
    reason = "RUN_NOT_FOUND"


class AttemptNotFound(NotFound):
    reason = "ATTEMPT_NOT_FOUND"


class RunSpecInvalid(InvalidArgument):
    reason = "RUN_SPEC_INVALID"


class RunNotReady(FailedPrecondition):
    reason = "RUN_NOT_READY"


class RunNotStoppable(FailedPrecondition):
    reason = "RUN_NOT_STOPPABLE"


class RunNotResumable(FailedPrecondition):
    reason = "RUN_NOT_RESUMABLE"


class RunModelMissing(FailedPrecondition):
    reason = "RUN_MODEL_MISSING"


class RequestIdReused(AlreadyExists):
    reason = "REQUEST_ID_REUSED"


class IllegalTransition(FailedPrecondition):
    reason = "ILLEGAL_TRANSITION"


class AttemptTokenRefused(Unauthenticated):
    reason = "ATTEMPT_TOKEN_REFUSED"


class AttemptSuperseded(FailedPrecondition):
    reason = "ATTEMPT_SUPERSEDED"


class WorkloadNotFound(NotFound):
    reason = "WORKLOAD_NOT_FOUND"


class WorkloadInvalid(InvalidArgument):
    reason = "WORKLOAD_INVALID"
