"""Decisions as records: what was asked, what was decided and why, and what became of the request.

A record is made when the headers of a request arrive. The session completes it as the request
proceeds. ``DecisionLog`` keeps the last ones in a ring, and tells those who follow it.

All times are seconds on one monotonic clock. ``DecisionLog.wall`` converts them to the time of day.
The parts of a request's time add up::

    arrived_at .. asked_at      its body arrives (``body_seconds``)
    asked_at .. decided_at      it is held, and decided (``held_seconds``, ``decision_seconds``)
    decided_at .. answered_at   the pod works on it, up to the headers of its answer
                                (``pod_seconds``)
    answered_at .. ended_at     its answer is sent
"""

import logging
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import monotonic, time

from msgspec import Struct, msgpack

from lora_router.log_limit import LogLimit
from lora_router.routing.algorithm import Sight
from lora_router.routing.looks import NO_ADAPTER, NO_LOOKS, PLACES, Looks, Seen, sights_of
from lora_router.routing.outcome import Routed

log = logging.getLogger("lora_router.telemetry")

MAX_ID = 128
"""Characters of a request's ID that a record keeps."""
MAX_NAME = 256
"""Characters of other texts that a record keeps."""
FAILED = 500
"""Statuses from here on are failures."""

_pack = msgpack.Encoder().encode
_unpack = msgpack.Decoder(list[Seen]).decode
_ORDINARY = ("routed", "answered", "")
"""The outcomes of requests that may be ordinary."""

Outcome = str
"""``routed``, ``refused``, ``answered`` (by the router itself) or ``cancelled`` (the client left
before a decision). Empty while it is open."""


Recall = Callable[[str, object, str, str], tuple[Seen, ...]]
"""Reads an algorithm's notes (``Recollection.recall``)."""


class Decision(Struct, gc=False):
    """One request, from its headers to its end. Only its session writes to it.

    The first fields are known once a pod is picked. ``recording`` gives them in this order.
    """

    arrived_at: float
    asked_at: float = 0.0
    """When it was clear what the request asks for, and the decision began. 0: never."""
    decided_at: float = 0.0
    request_id: str = ""
    path: str = ""
    model: str = ""
    """The name that the request asks for. ``adapter`` and ``base_model`` show what the rewrites of
    the settings make of it."""
    size: int = 0
    """Bytes of the body."""
    stream: bool = False
    adapter: str = ""
    """Empty: the request is for a base model, or for none."""
    base_model: str = ""
    """The base model that the request is for, as far as is known."""
    algorithm: str = ""
    outcome: Outcome = ""
    reason: str = ""
    """Why this pod, or why none."""
    pod: str = ""
    endpoint: str = ""
    decision_seconds: float = 0.0
    """Time in which the algorithm picked the pod, the last time that it was asked."""
    place: str = PLACES[NO_ADAPTER]
    """Where the adapter was on the pod: one of ``looks.PLACES``."""
    spilled: bool = False
    replicated: bool = False
    looks: Looks = NO_LOOKS
    """What was seen of the candidates. Empty once the request has ended (``seen``)."""
    notes: object = None
    """What the algorithm noted of them instead (``Pick.notes``). ``None`` once the request has
    ended (``noted``)."""
    estimated_prompt_tokens: float | None = None
    """Tokens of the prompt, as the router estimated them. ``None``: it did not read the prompt."""
    expected_cached_tokens: float | None = None
    """How many of these the router believed to be in the cache of the pod."""
    number: int = 0
    """Counts the decisions of this process, from 1. 0: not decided, or not recorded."""
    answered_at: float = 0.0
    """When the headers of the answer arrived. 0: they have not."""
    ended_at: float = 0.0
    held_seconds: float = 0.0
    """Time for which it was held. 0: it was not, or it still is."""
    held_for: str = ""
    """Why it was held. Empty: it was not."""
    status: int = 0
    """The HTTP status of the answer. 0: unknown."""
    details: str = ""
    """Envoy's response code details, if Envoy itself answered."""
    retried_on: str = ""
    """The pod to which Envoy sent the request in the end, if it is another one. The endpoint of a
    pod that the router does not know."""
    unanswered: bool = False
    """Whether the stream of a routed request ended before its answer began, because the client left
    or a gateway or router stopped. Always false while the gateway never shows answers."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    """Tokens of the prompt that the pod had in its cache."""
    held_looks: Looks = NO_LOOKS
    """What was seen of the candidates when it began to be held."""
    seen: tuple[Sight, ...] = ()
    held_seen: tuple[Sight, ...] = ()
    packed: bytes = b""
    """What is kept of the notes of the algorithm (``noted``), as MessagePack. As objects it would
    take three times the memory."""
    traceparent: str = ""
    """What the gateway or the client sent: any text."""
    trace_id: str = ""
    """The trace of the request's span. Empty: it has no span. Only ``Traces`` writes it."""

    @property
    def body_seconds(self) -> float:
        """Time from the headers of the request until it was clear what it asks for."""
        until = self.asked_at or self.decided_at
        return max(0.0, until - self.arrived_at) if until else 0.0

    @property
    def pod_seconds(self) -> float | None:
        """Time from the decision to the headers of the answer."""
        return self.answered_at - self.decided_at if self.answered_at else None

    @property
    def first_byte_seconds(self) -> float | None:
        """Time from the headers of the request to those of the answer."""
        return self.answered_at - self.arrived_at if self.answered_at else None

    @property
    def seconds(self) -> float | None:
        """Time from the headers of the request to the end of its stream."""
        return self.ended_at - self.arrived_at if self.ended_at else None

    @property
    def failed(self) -> bool:
        """Whether the status of the answer is a failure, of the pod, of Envoy or of the router."""
        return self.status >= FAILED

    @property
    def noted(self) -> Sequence[Seen]:
        """What the algorithm noted of the candidates. Empty before the request has ended."""
        return _unpack(self.packed) if self.packed else ()

    def routed(self, outcome: Routed) -> None:
        """Take in that a pod was picked at ``decided_at``."""
        if self.held_for:
            self.held_seconds = max(0.0, self.decided_at - self.asked_at - outcome.seconds)
            self.adapter = self.base_model = ""
        state = outcome.reservation.state
        self.outcome = "routed"
        self.algorithm, self.reason = outcome.algorithm, outcome.reason[:MAX_NAME]
        self.pod, self.endpoint = state.pod.name, state.pod.address
        self.decision_seconds = outcome.seconds
        self.looks, self.notes = outcome.looks, outcome.notes
        if (prompt := outcome.prompt) is not None:
            self.estimated_prompt_tokens = prompt.tokens
            self.expected_cached_tokens = prompt.cached
        adapter = outcome.reservation.adapter
        if adapter is not None:
            self.adapter = adapter[:MAX_NAME]
            self.base_model = (state.adapters.get(adapter) or "")[:MAX_NAME]
            self.place = outcome.place
            self.spilled, self.replicated = outcome.spilled, outcome.replicated
        elif outcome.model:
            self.base_model = outcome.model[:MAX_NAME]

    def undecided(self, now: float) -> None:
        """Take in that no pod was picked, and that none will be."""
        self.decided_at = now
        if self.held_for:
            self.held_seconds = now - self.asked_at

    def concluded(self, recall: Recall) -> None:
        """Replace what refers to the fleet by what a reader needs."""
        if self.notes is not None:
            self.packed = _pack(recall(self.algorithm, self.notes, self.pod, self.place))
            self.notes = None
        self.seen, self.looks = sights_of(self.looks), NO_LOOKS
        self.held_seen, self.held_looks = sights_of(self.held_looks), NO_LOOKS


def _forget(_algorithm: str, _notes: object, _pod: str, _place: str) -> tuple[Seen, ...]:
    return ()


class DecisionLog:
    """The last decisions of this process, and who follows them."""

    def __init__(
        self,
        capacity: int,
        *,
        share: float = 1.0,
        candidates_share: float = 0.01,
        slow_seconds: float = 5.0,
        now: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
        rng: random.Random | None = None,
    ) -> None:
        """Create it without decisions.

        Args:
            capacity: How many decisions are kept.
            share: The share of ordinary decisions that are kept. Abnormal ones always are.
            candidates_share: The share of ordinary decisions whose candidates are kept.
            slow_seconds: A request is slow if its first byte takes longer.
            now: Returns seconds, monotonic.
            wall: Returns seconds since 1970.
            rng: Chooses the ordinary decisions.
        """
        self.now = now
        self.slow_seconds = slow_seconds
        self.recall: Recall = _forget
        """Reads the notes of algorithms. Without it they are forgotten at the end of requests."""
        self.count = 0
        """Decisions so far."""
        self.on_decided: list[Callable[[Decision], None]] = []
        """Called with each decision."""
        self.on_ended: list[Callable[[Decision], None]] = []
        """Called with each decision whose request has ended, or that no pod gets. It is complete.
        """
        self.on_abnormal: list[Callable[[Decision], None]] = []
        """The same, if the request is abnormal. Ordinary requests cost these followers nothing."""
        self._ring: deque[Decision] = deque(maxlen=capacity)
        self.keep: Callable[[Decision], None] = (
            self._ring.append if share >= 1.0 else self._keep_some
        )
        """Keeps a decision that has its number, or not."""
        self._share = share
        self._candidates_share = candidates_share
        self._random = (rng or random.Random()).random
        self._epoch = wall() - now()
        self._limit = LogLimit(60.0)
        self.on_failure: Callable[[str, BaseException], None] = self._log_failure
        """Called with the name of a follower that raised, and what it raised."""

    def wall(self, at: float) -> float:
        """Return a time of a record as seconds since 1970."""
        return self._epoch + at

    def __len__(self) -> int:
        return len(self._ring)

    def __iter__(self) -> Iterator[Decision]:
        """Yield the decisions, the newest first."""
        return reversed(self._ring)

    def is_slow(self, decision: Decision) -> bool:
        """Return whether the first byte of a request took, or takes, too long."""
        until = decision.answered_at or decision.ended_at or self.now()
        return until - decision.arrived_at > self.slow_seconds

    def is_abnormal(self, decision: Decision) -> bool:
        """Return whether a request deserves a look.

        It was held, refused, retried, cancelled or slow, it failed, or it got no answer.
        """
        return (
            bool(decision.held_for)
            or decision.outcome not in _ORDINARY
            or bool(decision.retried_on)
            or decision.unanswered
            or decision.failed
            or self.is_slow(decision)
        )

    # Called by sessions

    def begin(self, request_id: str, path: str, arrived_at: float | None = None) -> Decision:
        """Return the record of a request whose headers arrived; ``None``: now."""
        if arrived_at is None:
            arrived_at = self.now()
        return Decision(arrived_at, request_id=request_id[:MAX_ID], path=path[:MAX_NAME])

    def decided(self, decision: Decision) -> None:
        """Take in a decision."""
        self.count = decision.number = self.count + 1
        self.keep(decision)
        if self.on_decided:
            self.tell_decided(decision)

    def tell_decided(self, decision: Decision) -> None:
        """Tell those who follow of a decision."""
        self._tell(self.on_decided, decision)

    def _keep_some(self, decision: Decision) -> None:
        if self._random() < self._share:
            self._ring.append(decision)
        else:
            decision.number = -decision.number

    def ended(self, decision: Decision) -> None:
        """Take in that a request has ended. Nobody writes to its record any more."""
        decision.ended_at = now = self.now()
        # As in ``is_abnormal``, without the calls.
        if (
            decision.status >= FAILED
            or decision.held_for
            or decision.outcome not in _ORDINARY
            or (decision.answered_at or now) - decision.arrived_at > self.slow_seconds
            or decision.retried_on
            or decision.unanswered
        ):
            if decision.number < 0:
                decision.number = -decision.number
                self._ring.append(decision)
            decision.concluded(self.recall)
            if self.on_abnormal:
                self._tell(self.on_abnormal, decision)
        elif self._random() < self._candidates_share:
            decision.concluded(self.recall)
        elif decision.notes is not None:
            decision.notes = None
        else:
            decision.looks = NO_LOOKS
        if self.on_ended:
            self._tell(self.on_ended, decision)

    def _tell(self, followers: list[Callable[[Decision], None]], decision: Decision) -> None:
        for follow in followers:
            try:
                follow(decision)
            except (Exception, SystemExit) as error:
                name = getattr(follow, "__qualname__", type(follow).__name__)
                self.on_failure(name, error)

    def _log_failure(self, follower: str, error: BaseException) -> None:
        message = f"{follower} failed to take in a decision"
        self._limit.log(log, logging.ERROR, follower, message, exc_info=error)
