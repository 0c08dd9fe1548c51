"""What can go wrong with models, versions and deployments; the tree stands in `espalier_common.errors`."""

from espalier_common.errors import AlreadyExists, FailedPrecondition, NotFound, PermissionDenied


class ModelNotFound(NotFound):
    reason = "MODEL_NOT_FOUND"


class ModelNameTaken(AlreadyExists):
    reason = "MODEL_NAME_TAKEN"


class ModelVersionNotFound(NotFound):
    reason = "MODEL_VERSION_NOT_FOUND"


class DeploymentNotFound(NotFound):
    reason = "DEPLOYMENT_NOT_FOUND"


class DeploymentNameTaken(AlreadyExists):
    reason = "DEPLOYMENT_NAME_TAKEN"


class DeploymentNotReady(FailedPrecondition):
    reason = "DEPLOYMENT_NOT_READY"


class DeploymentOfAnother(PermissionDenied):
    reason = "DEPLOYMENT_OF_ANOTHER"
