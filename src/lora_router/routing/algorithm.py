"""The algorithm interface: everything an algorithm receives and everything it may answer.

``docs/algorithms.md`` explains it with a complete example. The interface has a version,
``INTERFACE_VERSION``, which changes when an algorithm written for the old one would stop working.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from msgspec import Struct

from lora_router.fleet.pod_state import PodView
from lora_router.fleet.prompt import Prompt
from lora_router.routing.candidates import Candidates

INTERFACE_VERSION = 3
"""1: candidates were a plain sequence, and every held request was asked again after each change.
2: ``Candidates``, ``Hold.wakes_on``, ``Hold.ask_again``, ``InferenceRequest.held_since``, declared
options.
3: ``Pick.notes`` and ``Recalls``. An algorithm written for an older version works unchanged."""


class InferenceRequest(Struct, frozen=True):
    """What the router knows of a request when it chooses a pod."""

    model: str
    """The model name that the client sent."""
    adapter: str | None = None
    """The same name if it is a LoRA adapter; ``None`` for a base model."""
    stream: bool = False
    """Whether the client asked for a streamed answer."""
    size: int = 0
    """Length of the body in bytes."""
    path: str = ""
    """The path of the request, without its query."""
    request_id: str = ""
    """The ``x-request-id`` header, as the client sent it or as the router made it."""
    may_hold: bool = True
    """Whether ``Hold`` is an answer. ``False`` once the request has waited as long as it may."""
    held_since: float | None = None
    """When the oldest request that asks the same question (same algorithm, model, filter and
    subset) was held, in seconds on the clock of ``now``. ``None``: none is held."""
    closing: tuple[PodView, str] | None = None
    """The slot that is being freed for that question: the last ``Hold.closed``."""
    priority: int = 0
    """The priority of the request's objective. A higher one goes first, also negative ones exist.
    Of the requests that wait for the same pods, the waiting room asks for those of the highest
    priority first."""
    prompt: Prompt | None = None
    """The prompt, for an algorithm with ``reads_prompts = True``. ``None``: the algorithm does not
    ask for it, or the request has none that the router can read."""


class Pick(Struct, frozen=True):
    """Send the request to this pod, now."""

    pod: PodView
    """One of the candidates."""
    reason: str
    """The reason, in a few words joined by hyphens. A metric label: use a small fixed set."""
    tokens: float = 0.0
    """Prompt tokens that the pod has to process for the request, as far as is known. They count as
    the pod's ``work`` until the answer begins."""
    without_slot: bool = False
    """Whether the pod may have no slot for the adapter, and the algorithm heeds closed slots. The
    router then closes a slot of the pod until the adapter has one (``misplaced``)."""
    notes: object = None
    """What the algorithm computed of the candidates, for ``Recalls.recall``. The router keeps the
    object as it is until the request ends, and longer only what ``recall`` makes of it. It must
    contain numbers, because pods change, must not change any more, and must be small: about as many
    entries as pods were inspected. ``None``: the router notes what a few candidates look like."""


class WakesOn(Enum):
    """What can change the answer to a held request."""

    ANY_CHANGE = "any-change"
    """Any release, scrape, change of pods, or report of a peer. With many requests held this is
    expensive, so the router asks a limited number of them at a time."""
    FREE_SLOT = "free-slot"
    """A candidate has a free slot, or the adapter came in flight on a candidate, or a slot that
    was closed to it is open again. The router then asks the one that has waited longest."""
    ROOM = "room"
    """A candidate has room for another request, as ``pod_room`` says. The router holds requests for
    this by itself, for every algorithm."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Hold the request. It waits in the router, and ``pick`` is called again later.

    It is called when something happens that ``wakes_on`` names, after ``ask_again`` seconds, and
    when the time is up. In that last call ``may_hold`` is ``False``. If the answer is ``Hold`` even
    then, the request is refused because the pods are overloaded. Requests that ask the same
    question wait in one queue, in order of arrival, and only the first of them is asked.
    """

    reason: str
    """The reason, as in ``Pick.reason``."""
    seconds: float
    """The longest time in seconds that the request may wait, from its first ``Hold``. Above 0."""
    wanted: PodView | None = None
    """The pod whose free slot would be best for the request, but is in a peer's allotment. The
    router reports it to its peers, which then leave the slot alone (``fleet/slot_allotment.py``).
    """
    closed: tuple[PodView, str] | None = None
    """The slot that must become free for the request: a pod, and the adapter that must get no
    further requests there. All algorithms see it in ``candidates.waiting``, peers in
    ``beliefs.peers.closed``. It stays closed until the request is routed or gone, or until another
    answer names another slot or none."""
    wakes_on: WakesOn = WakesOn.ANY_CHANGE
    ask_again: float | None = None
    """Call ``pick`` again after this many seconds at the latest, even if nothing changes."""
    optional: bool = False
    """Whether a pod could take the request now. It is never refused then: if it may not wait, or
    its time is up, ``pick`` is called for a request that may not be held."""
    home: PodView | None = None
    """With ``WakesOn.ROOM``, the pod that has the beginning of the request's prompt. When that pod
    has room, the request goes before some that came a little earlier (``waiting_queue``)."""


class Algorithm(Protocol):
    """Picks the pod for a request.

    An algorithm whose attribute ``reads_prompts`` is ``True`` gets ``InferenceRequest.prompt``, and
    ``Candidates.cached`` answers which pods have its beginning. For others, no prompt is read.

    While overload is shed, requests of an algorithm whose attribute ``waits_for_room`` is ``True``
    wait in the router rather than on pods whose batch or KV cache is full.

    If the default algorithm has an attribute ``keeps_slots`` that is ``True``, slots are closed for
    adapters that wait for one on a pod although the algorithm saw a free slot there
    (``overfull_pods``). Such an algorithm picks no pod that is in
    ``candidates.waiting.closed_to(adapter)``.

    ``pick`` runs on the request path between two other requests. It must return at once: no
    ``await``, no I/O, no waiting. It must not retain ``candidates`` or change anything in it.
    """

    @property
    def name(self) -> str:
        """The name that clients write into the header ``routing-strategy``."""

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick | Hold:
        """Return a pick of one of the candidates for the request, or hold it.

        Args:
            request: The request.
            candidates: Ready pods that serve its model; never empty.
            now: Seconds on the clock of ``PodMetrics.scraped_at``.
        """


class Sight(Struct, frozen=True):
    """What a decision sees, or saw, of one candidate."""

    pod: str
    """The pod's name."""
    requests: int
    """Requests in flight on it, of all known senders."""
    free_slots: int | None
    """Its free slots. ``None``: unknown. Negative: so many more adapters are in flight than there
    are slots."""
    place: str
    """Where the request's adapter is: one of ``looks.PLACES``."""
    view: PodView | None = None
    """The pod. ``None``: the decision is past, and the pod has changed since."""

    @property
    def is_full(self) -> bool:
        """Whether it has no free slot, as far as is known."""
        return self.free_slots is not None and self.free_slots <= 0


class Cost(Struct, frozen=True):
    """What a candidate costs an algorithm."""

    terms: Mapping[str, float] = {}
    """The parts of the cost, by name. The candidate with the lowest sum is the best one. A score,
    of which the highest is the best, is a negative cost."""
    excluded: str = ""
    """Why the algorithm does not consider the candidate. Empty: it does."""


class Explains(Protocol):
    """What an algorithm may have besides, so that people can ask why it picked a pod.

    It is called for people, and never for a request.
    """

    def terms(
        self,
        request: InferenceRequest,
        sights: Sequence[Sight],
        candidates: Candidates | None,
        now: float,
    ) -> Sequence[Cost]:
        """Return what each of some candidates costs, in their order.

        Args:
            request: The request. Of a past decision it has the model, the adapter and the size.
            sights: What is seen of some candidates, or was seen by a past decision.
            candidates: All candidates. ``None``: the decision is past.
            now: Seconds on the clock of ``PodMetrics.scraped_at``.
        """


class Noted(Struct, frozen=True):
    """What a past decision knew of one candidate."""

    pod: PodView
    """The pod. Only its name is read: everything else has changed since."""
    cost: Cost
    requests: int | None = None
    """Requests in flight on it, of all known senders. ``None``: the algorithm did not note it."""
    place: str = ""
    """Where the request's adapter was, as in ``Sight.place``. Empty: the algorithm did not note it.
    """


class Recalls(Protocol):
    """What an algorithm may have besides, so that its past decisions can be explained exactly.

    It is called for people, and for requests that are over and abnormal.
    """

    def recall(self, notes: object) -> Iterable[Noted]:
        """Return what each candidate cost that a past decision considered.

        Args:
            notes: The ``Pick.notes`` of that decision.
        """


@dataclass(frozen=True, slots=True)
class AlgorithmOptions:
    """The options from which an algorithm is created."""

    lora_affinity_threshold: float = 0.999
    """Probability in [0, 1] of preferring a pod that has the adapter over one that has room."""
    metrics_max_age: float = 15.0
    """Seconds after which a snapshot is ignored."""
    rng: random.Random = field(default_factory=random.Random)
    """The source of every random choice, so that a run can be repeated."""
    takes_notes: bool = True
    """Whether decisions are recorded, so that ``Pick.notes`` are of use."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """``algorithm_options`` in the settings, as text. An algorithm declares the names that it reads
    in ``option_names``. A name that no installed algorithm declares aborts startup."""


class AlgorithmFactory(Protocol):
    """What an entry point of the group ``lora_router.algorithms`` names, usually a class.

    It may have two attributes: ``option_names``, a collection of the ``algorithm_options`` that it
    reads, and ``interface_version``, the version of this interface that it was written for.
    """

    def __call__(self, options: AlgorithmOptions, /) -> Algorithm:
        """Return the algorithm.

        Raises:
            ValueError: An option has an invalid value.
        """
