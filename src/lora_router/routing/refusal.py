"""Why a request gets no pod. What the client is told of it, ``extproc.errors`` says."""

from dataclasses import dataclass
from enum import Enum


class Refusal(Enum):
    """The reasons; their values are metric labels."""

    NO_MODEL = "no-model"
    UNKNOWN_ALGORITHM = "unknown-algorithm"
    BAD_SELECTOR = "bad-selector"
    UNKNOWN_MODEL = "unknown-model"
    """Every ready pod has said what it serves, and it is not this."""
    MODELS_UNKNOWN = "models-unknown"
    """No pod is known to serve it, but some have not said yet what they serve."""
    NO_READY_POD = "no-ready-pod"
    NONE_SELECTED = "none-selected"
    """Pods serve it, and the label selector or the gateway's subset leaves none of them."""
    OVERLOADED = "overloaded"
    """It was held as long as it may be, and no pod had room."""
    TOO_MANY_HELD = "too-many-held"
    """It would have to wait, and as many requests wait as may."""
    SHUTTING_DOWN = "shutting-down"
    """It waited for a slot, and the router stops."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A request was refused."""

    refusal: Refusal
    model: str = ""
    """The model asked for, where that matters."""
    detail: str = ""
    """What exactly is wrong, safe to show to the client."""
    known: tuple[str, ...] = ()
    """What would have been right, where that can be listed."""
