"""The settings of prompt."""

from espalier_common.settings import ServiceSettings


class PromptSettings(ServiceSettings):
    """Those of every service; prompt adds none."""
