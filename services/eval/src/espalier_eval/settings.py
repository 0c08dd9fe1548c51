"""The settings of eval."""

from espalier_common.settings import ServiceSettings


class EvalSettings(ServiceSettings):
    """Those of every service; eval adds none."""
