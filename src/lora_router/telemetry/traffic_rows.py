"""The rows in which ``traffic`` counts requests: one of a base model, a pod or an adapter."""

from lora_router.routing.looks import NO_ADAPTER, PLACES
from lora_router.telemetry.times import Times

FOUND = tuple(words for place, words in PLACES.items() if place != NO_ADAPTER)
"""Where the adapter of a request is found on its pod."""


class Failures:
    """Requests that were sent to a pod and failed, by cause.

    The causes are separate, because an answer with an error is a fault of the pod or of the way to
    it, and a missing answer is mostly no fault: the client left. A pod that dies before it answers
    is no missing answer. Envoy then answers 503.
    """

    __slots__ = ("status", "unanswered")

    def __init__(self) -> None:
        self.status = 0
        """They were answered with a status from 500 on, by the pod or by Envoy in its place."""
        self.unanswered = 0
        """Their streams ended before an answer began (``Decision.unanswered``)."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.status + self.unanswered


class ModelTraffic:
    """The requests of one base model."""

    __slots__ = (
        "completion_tokens",
        "duration",
        "estimated",
        "expected_cached",
        "failed",
        "first_byte",
        "hold",
        "prompt_tokens",
        "replicated",
        "spilled",
        "stated",
        "stated_cached",
    )

    def __init__(self) -> None:
        self.first_byte = Times()
        self.duration = Times()
        self.hold = Times()
        self.failed = Failures()
        """Those of pods that have left count, too."""
        self.spilled = 0
        self.replicated = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.estimated = self.expected_cached = 0.0
        """Prompt tokens of requests whose prompts were read, and those believed to be cached."""
        self.stated = self.stated_cached = 0
        """Prompt tokens of answers that state cached tokens, and these."""


class PodTraffic:
    """The requests that were sent to one pod."""

    __slots__ = ("duration", "failed", "first_byte")

    def __init__(self) -> None:
        self.first_byte = Times()
        self.duration = Times()
        self.failed: dict[str, Failures] = {}
        """By base model."""


class AdapterTraffic:
    """The requests for one adapter."""

    __slots__ = (
        "completion_tokens",
        "counted",
        "duration",
        "failed",
        "first_byte",
        "found",
        "held",
        "hold",
        "label",
        "prompt_tokens",
        "replicated",
        "requests",
        "score",
        "spilled",
    )

    def __init__(self, name: str) -> None:
        self.label = as_label(name)
        self.requests = 0
        """Requests that were sent to a pod, or held and sent to none."""
        self.held = 0
        """How many of them were held."""
        self.failed = Failures()
        self.found = dict.fromkeys(FOUND, 0)
        """Where the adapter was on the pod of each request, by ``FOUND``."""
        self.spilled = 0
        self.replicated = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.first_byte = Times()
        self.duration = Times()
        self.hold = Times()
        self.score = 0.0
        """Its requests, of which older ones weigh less, when it was last compared."""
        self.counted = 0
        """``requests`` at that time."""


def as_label(name: str) -> str:
    """Return a name as a label: a string that can be encoded as UTF-8. Other names differ."""
    return name.encode("utf-8", "backslashreplace").decode()
