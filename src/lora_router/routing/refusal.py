"""Why a request gets no pod. ``extproc.errors`` turns these reasons into responses to clients."""

from dataclasses import dataclass
from enum import Enum

from lora_router.routing.looks import NO_LOOKS, Looks


class Refusal(Enum):
    """The reasons. Their values are metric labels."""

    NO_MODEL = "no-model"
    UNKNOWN_ALGORITHM = "unknown-algorithm"
    BAD_SELECTOR = "bad-selector"
    UNKNOWN_MODEL = "unknown-model"
    """Every ready pod has reported what it serves, and none serves this model."""
    MODELS_UNKNOWN = "models-unknown"
    """No pod is known to serve the model, but some pods have not yet reported what they serve."""
    ADAPTER_NOT_LOADED = "adapter-not-loaded"
    """The adapter is declared, and no pod has loaded it: it cannot be loaded, or not in time."""
    NO_READY_POD = "no-ready-pod"
    NONE_SELECTED = "none-selected"
    """Pods serve the model, but the label selector or the gateway's subset excludes all of them."""
    MODEL_ELSEWHERE = "model-elsewhere"
    """The request must go to one pod, and that pod does not serve the model."""
    OVERLOADED = "overloaded"
    """The request was held as long as it may be, and no pod had room; or it would probably have
    waited for longer than ``max_expected_wait_seconds``."""
    TOO_MANY_HELD = "too-many-held"
    """The request would have to wait, but the maximum number of requests already waits; or it
    waited, and one of a higher priority took its place."""
    SHUTTING_DOWN = "shutting-down"
    """The request waited for a slot, and the router is shutting down."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused request."""

    refusal: Refusal
    model: str = ""
    """The requested model, if it matters."""
    detail: str = ""
    """What exactly is wrong. Safe to show to the client."""
    known: tuple[str, ...] = ()
    """The values that would have been valid, if they can be listed."""
    wait: float | None = None
    """How many seconds the request would probably have waited; ``None``: nobody knows."""
    looks: Looks = NO_LOOKS
    """What was seen of the candidates, if there were any and decisions are recorded."""
