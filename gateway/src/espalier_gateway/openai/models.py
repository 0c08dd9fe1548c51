"""`GET /v1/models` and `/v1/models/{model}`: the deployments that answer. A model is named as its deployment is."""

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from espalier.model_registry.v1 import resources_pb2 as pb
from espalier_common.errors import InvalidArgument, NotFound, Unavailable
from espalier_common.identifiers import is_uuid
from espalier_gateway.openai.calls import Calls

PAGE = 1000
LOADING = frozenset({pb.DEPLOYMENT_STATE_PENDING, pb.DEPLOYMENT_STATE_STARTING})
LOADING_SECONDS = 5.0

LIST = "espalier.model_registry.v1.DeploymentService.ListDeployments"
GET = "espalier.model_registry.v1.DeploymentService.GetDeployment"


class ModelNotFound(NotFound):
    reason = "MODEL_NOT_FOUND"


class ModelNotReady(Unavailable):
    reason = "MODEL_NOT_READY"


class Models:
    """The two routes. Who may list deployments may list models."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def all(self, request: Request) -> Response:
        """GET: all that answer, newest first."""
        found: list[Any] = []
        token = ""
        while True:
            page = await self._calls.ask(
                request, LIST, state=pb.DEPLOYMENT_STATE_READY, page_size=PAGE, page_token=token
            )
            found += page.deployments
            if not (token := page.next_page_token):
                return _json({"object": "list", "data": [_model(deployment) for deployment in found]})

    async def one(self, request: Request) -> Response:
        """GET: one, by its name or the id of its deployment."""
        name: str = request.path_params["model"]
        deployment = await self._find(request, name)
        if deployment.state != pb.DEPLOYMENT_STATE_READY:
            text = f"The model {deployment.name!r} does not answer now. {deployment.message}"
            raise ModelNotReady(text, retry_after=LOADING_SECONDS if deployment.state in LOADING else None)
        return _json(_model(deployment))

    async def _find(self, request: Request, name: str) -> Any:
        try:
            page = await self._calls.ask(request, LIST, name=name, page_size=1)
            if page.deployments and name:
                return page.deployments[0]
            if is_uuid(name):
                return await self._calls.ask(request, GET, deployment_id=name)
        except (NotFound, InvalidArgument) as error:
            raise _unknown(name) from error
        raise _unknown(name)


def _unknown(name: str) -> ModelNotFound:
    text = f"There is no model {name[:200]!r} here; GET /v1/models lists those that answer."
    return ModelNotFound("model", name[:200], message=text)


def _model(deployment: Any) -> dict[str, Any]:
    return {
        "id": deployment.name,
        "object": "model",
        "created": deployment.create_time.seconds,
        "owned_by": "espalier",
        "deployment_id": deployment.id,
    }


def _json(value: object) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
