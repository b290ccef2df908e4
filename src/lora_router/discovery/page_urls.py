"""Where the pages of a pod are: the scheme, and the paths of its metrics and its list of models.

A pod can only name a path and one of two schemes. Its own address and ports are what is contacted.
"""

from dataclasses import dataclass
from typing import Literal

from lora_router.fleet.engine_names import DEFAULT_METRICS_PATH, METRICS_PATHS

Scheme = Literal["http", "https"]
SCHEMES: tuple[Scheme, ...] = ("http", "https")
MODELS_PATH = "/v1/models"
PATH_RULE = "a path that begins with a slash, of up to 1024 ASCII characters without spaces"
_LONGEST_PATH = 1024


@dataclass(frozen=True, slots=True)
class PageRules:
    """Where the pages of pods are that do not say it themselves."""

    scheme: Scheme = "http"
    metrics_path: str | None = None
    """``None``: where the pod's engine has it."""
    models_path: str = MODELS_PATH

    def metrics_path_of(self, engine: str | None) -> str:
        """Return the path of the metrics of an engine."""
        if self.metrics_path is not None:
            return self.metrics_path
        return METRICS_PATHS.get(engine or "", DEFAULT_METRICS_PATH)


def is_page_path(value: object) -> bool:
    """Return whether a value is a path, with or without a query."""
    return (
        isinstance(value, str)
        and value.startswith("/")
        and len(value) <= _LONGEST_PATH
        and value.isascii()
        and value.isprintable()
        and not {" ", "#", "\\"} & set(value)
    )
