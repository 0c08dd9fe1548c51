"""What the model registry adds to the settings of every service."""

from pydantic import Field

from espalier_common.settings import ServiceSettings


class ModelRegistrySettings(ServiceSettings):
    """Paces of the reconciler; the defaults fit one machine and a cluster alike."""

    model_registry_starting_poll_seconds: float = Field(
        default=1.5, gt=0, description="pause between two looks at a model server that loads; events come sooner"
    )
    model_registry_ready_poll_seconds: float = Field(
        default=15, gt=0, description="pause between two looks at one that answers: finds what no event told"
    )
