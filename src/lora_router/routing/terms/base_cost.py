"""What pods cost one request, whatever its adapter: the terms *load* and *prefix*."""

from collections.abc import Sequence

from lora_router.fleet.pod_state import PodView
from lora_router.routing.terms.load import Load, stall
from lora_router.routing.terms.prefix import Prefix

PREFIX = "prefix"
"""The name of that term."""


class BaseCost:
    """The costs of pods for one request, at one moment."""

    __slots__ = ("_load", "each", "load_of", "now", "prefix")

    def __init__(self, load: Load, prefix: Prefix, pods: Sequence[PodView], now: float) -> None:
        """Compare pods.

        Args:
            load: The load of pods.
            prefix: What pods have of the request's prompt.
            pods: The pods that are considered. At least one.
            now: Seconds, monotonic.
        """
        prefix.consider(pods)
        self.prefix = prefix
        self._load = load
        self.load_of = load.of
        """Returns a pod's load. It is called for each pod, with ``now`` and ``each``."""
        self.now = now
        self.each = stall(prefix.least_lacking(), pods[0].work.tokens_a_second)
        """What each request in flight costs, because of the request's own prompt."""

    def load(self, pod: PodView) -> float:
        """Return the load of a pod."""
        return self.load_of(pod, self.now, self.each)

    def of(self, pod: PodView) -> float:
        """Return the sum of both terms."""
        load = self.load_of(pod, self.now, self.each)
        return load + self.prefix.cost(pod) if self.prefix.best else load

    def parts(self, pod: PodView) -> dict[str, float]:
        """Return the terms by name, for people."""
        parts = self._load.parts(pod, self.now, self.each)
        if self.prefix.best:
            parts[PREFIX] = self.prefix.cost(pod)
        return parts
