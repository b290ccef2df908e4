"""What an algorithm is: the whole of what it is told and of what it may answer.

To add one, write a class and name it in your package's metadata::

    class LeastCache:
        \"\"\"The pod with the most room in its KV cache.\"\"\"

        name = "least-cache"

        def __init__(self, options: AlgorithmOptions) -> None:
            self.max_age = options.metrics_max_age

        def pick(self, request, candidates, now):
            def usage(pod):
                metrics = pod.fresh_metrics(now, self.max_age)
                return (metrics and metrics.kv_cache_usage) or 0.0

            return Pick(min(candidates, key=usage), "least-cache")

    # pyproject.toml
    [project.entry-points."lora_router.algorithms"]
    least-cache = "my_package:LeastCache"
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from lora_router.fleet.pod_state import PodView


class InferenceRequest(Struct, frozen=True):
    """What the router knows of a request when it has to choose."""

    model: str
    """The model name the client asked for; empty for requests that name none."""
    adapter: str | None = None
    """The same name if it is a LoRA adapter; ``None`` for a base model."""
    stream: bool = False
    """Whether the client asked for a streamed answer."""
    size: int = 0
    """Length of the body in bytes."""
    path: str = ""
    """The path asked for, without its query."""
    request_id: str = ""
    """The ``x-request-id`` header, kept from the client or made."""
    may_hold: bool = True
    """Whether ``Hold`` is an answer. ``False`` once the request has waited as long as it may."""


class Pick(Struct, frozen=True):
    """Send the request to this pod, now."""

    pod: PodView
    reason: str
    """Why, in a few words joined by hyphens. A metric label: choose from a small fixed set."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Not yet. The request waits in the router, and ``pick`` is asked again.

    It is asked when a request of this router ends, when a scrape, a change of pods or another
    router's word arrives, and when the time is up; then for the last time, with ``may_hold`` off,
    and whoever holds even then has the client told that the pods are overloaded. Held requests are
    asked in order of arrival; when one is held again, others for the same model and with the same
    filter are not asked until the next change.
    """

    reason: str
    seconds: float
    """How long the request may wait at most, counted from its first ``Hold``."""
    wanted: PodView | None = None
    """The pod whose free slot would be best for it, if only the slot is another router's to take.
    Other routers are told, and leave it (``fleet/slot_turns.py``)."""
    closed: tuple[PodView, str] | None = None
    """The slot that is to become free for it, if one was chosen: a pod, and the adapter that gets
    no further requests there. Other routers find it in ``beliefs.peers.closed``."""


class Algorithm(Protocol):
    """Picks the pod for a request.

    ``pick`` runs on the request path between two other requests. It must return at once: no
    ``await``, no I/O, no waiting. It must not keep ``candidates`` or change what is in it.
    """

    @property
    def name(self) -> str:
        """What users write into ``routing-strategy``."""

    def pick(
        self, request: InferenceRequest, candidates: Sequence[PodView], now: float
    ) -> Pick | Hold:
        """Choose one of the candidates for the request, or hold it.

        Args:
            request: The request.
            candidates: Ready pods that serve its model; never empty.
            now: Seconds on the clock of ``PodMetrics.scraped_at``.
        """


@dataclass(frozen=True, slots=True)
class AlgorithmOptions:
    """What an algorithm is made from."""

    lora_affinity_threshold: float = 0.999
    """Probability in [0, 1] of preferring a pod that has the adapter over one that has room."""
    metrics_max_age: float = 15.0
    """Seconds after which a snapshot counts for nothing."""
    rng: random.Random = field(default_factory=random.Random)
    """The source of every random choice, so that a run can be repeated."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """``algorithm_options`` in the settings, unread: each algorithm knows its own by name."""


class AlgorithmFactory(Protocol):
    """What an entry point of the group ``lora_router.algorithms`` names: a class will do."""

    def __call__(self, options: AlgorithmOptions, /) -> Algorithm:
        """Make the algorithm. Raise ``ValueError`` if the options make no sense."""
