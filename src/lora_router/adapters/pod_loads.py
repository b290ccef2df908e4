"""What the loader knows of one pod: what belongs there, what is missing, and what goes on."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from lora_router.adapters.adapter_place import Place
from lora_router.adapters.backoff import Failure
from lora_router.adapters.call_limit import SLOW_SECONDS
from lora_router.adapters.calls import Call
from lora_router.adapters.capacity import capacity_of
from lora_router.adapters.pace import StallBudget
from lora_router.adapters.retirement import Retirement
from lora_router.fleet.adapter_beliefs import AWAY
from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod_state import PodState

Why: TypeAlias = Literal["makes-room", "outdated", "misplaced", "replaced"]
"""Why an adapter is about to be unloaded:

- ``makes-room``: another one needs its place.
- ``outdated``: it is declared no longer.
- ``misplaced``: its declaration has fewer copies, other pods, or another base model.
- ``replaced``: it is an older version that is still in use, and the new one has no other place.
"""

_NO_PLACES: Mapping[str, Place] = MappingProxyType({})
_SLOW = 3.0
"""A call that has taken so many times as long as a load usually takes may hang."""
_SLOW_AT_LEAST = 2.0
"""But none that has taken fewer seconds."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """An adapter that gets no more requests on a pod, because it is about to be unloaded there."""

    name: str
    due: float
    """From when it may be unloaded: requests that were on their way have arrived by then."""
    why: Why


class PodLoads:
    """The record of one pod. The loader writes to it."""

    __slots__ = (
        "blocked_reason",
        "blocked_told",
        "blocked_until",
        "budget",
        "call",
        "called_at",
        "catalog",
        "first",
        "is_planned",
        "is_stale",
        "leaving",
        "lost",
        "misplaced",
        "missing",
        "ours",
        "put_off",
        "refusals",
        "retiring",
        "silent_for",
        "state",
        "unproven",
        "unread",
        "unread_since",
        "verify",
        "wake_at",
        "wanted",
    )

    def __init__(self, state: PodState, budget: StallBudget) -> None:
        self.state = state
        self.budget = budget
        """How much loads may still stall it."""
        self.wanted: Mapping[str, Place] = _NO_PLACES
        """What belongs there by served name, the most urgent first."""
        self.is_planned = False
        """Whether some plan knew it. Until then, it is unknown what belongs there."""
        self.missing: dict[str, Place] = {}
        """What of it must be loaded, in the same order. What fails there comes last."""
        self.first: dict[str, float] = {}
        """What is loaded there before all else, because requests wait for it and no pod has it, and
        when it was asked for first (``first_places``)."""
        self.retiring: dict[str, float] = {}
        """What it lists and what is to be unloaded (older versions, removed declarations), and
        since when."""
        self.misplaced: dict[str, None] = {}
        """What it lists and what belongs elsewhere by its declaration."""
        self.catalog: Catalog | None = None
        """The list from which these three were derived; ``None``: they must be derived again."""
        self.is_stale = False
        """Whether its list changed, and they are derived again soon."""
        self.ours: dict[str, str] = {}
        """What this router loaded there, with the sources."""
        self.call: Call | None = None
        """What goes on."""
        self.called_at = 0.0
        self.leaving: Leaving | None = None
        self.lost: tuple[str, ...] = ()
        """What its server lost in a restart. It is withdrawn until the list has been read."""
        self.unread = False
        """Whether its list must be read first, because it is unknown what it has loaded."""
        self.unread_since = 0.0
        """When that was found out. Lists that were asked for before do not count."""
        self.unproven: dict[str, float] = {}
        """What it has loaded, as it says, and since when no list could show it."""
        self.verify = ""
        """The adapter that it says it has, and that its next list must therefore contain."""
        self.blocked_until = 0.0
        self.blocked_reason = ""
        """Why it gets no calls until then."""
        self.blocked_told = False
        """Whether the log has said so."""
        self.refusals = 0
        """How often in a row it was given no calls for a while, because it took none."""
        self.silent_for = ""
        """The adapter whose call it did not answer in time, if that was its last call."""
        self.put_off = ""
        """Why its next step is put off: one of ``steps.REASONS``; empty: it is not."""
        self.wake_at = float("inf")
        """When the next step is looked for again."""

    @property
    def requests(self) -> int:
        """Requests there, of this router and of all others, as far as is known."""
        return self.state.in_flight + self.state.beliefs.foreign_requests

    @property
    def fails(self) -> bool:
        """Whether its last call failed, maybe after a long time, so that others come first."""
        return self.refusals > 0 or bool(self.silent_for)

    def is_slow(self, now: float) -> bool:
        """Return whether its call takes longer than loads usually do, so that it may hang."""
        if self.call is None:
            return False
        usual = self.state.beliefs.load_seconds[AWAY]
        return now - self.called_at >= min(SLOW_SECONDS, max(_SLOW_AT_LEAST, _SLOW * usual))

    @property
    def free(self) -> int:
        """How many more adapters its host memory holds. What is about to leave is still there."""
        return capacity_of(self.state) - len(self.state.adapters) - len(withdrawn_on(self))

    @property
    def has_known_memory(self) -> bool:
        """Whether the size of its host memory is known, as far as it will be."""
        state = self.state
        return state.metrics is not None or state.beliefs.memory.spec.host_memory is not None

    def is_fit(self, now: float) -> bool:
        """Return whether adapters may belong there."""
        return self.blocked_until <= now and self.has_known_memory

    def derive(
        self, retirement: Retirement, failing: Mapping[str, Failure], now: float, *, in_place: bool
    ) -> None:
        """Find out again what is missing and what must go.

        Args:
            retirement: Knows what is declared.
            failing: What fails on the pod.
            now: Seconds, monotonic.
            in_place: Whether a changed source replaces the adapter under its name.
        """
        state = self.state
        listed = state.adapters
        self.catalog, self.is_stale = state.catalog, False
        self.missing = {
            name: place
            for name, place in self.wanted.items()
            if name not in listed or (in_place and self._has_other(place, retirement))
        }
        last = [name for name in failing if name in self.missing]
        for name in sorted(last, key=lambda name: failing[name].next_at):
            self.put_last(name)
        since = self.retiring
        self.retiring = {
            name: since.get(name, now) for name in listed if retirement.is_outdated(name)
        }
        for name in self.retiring:
            retirement.saw_older(name)
        self.misplaced = {
            name: None
            for name in (listed if self.is_planned else ())
            if name not in self.wanted and retirement.is_bound_elsewhere(name, state)
        }

    def retire(self, name: str, retirement: Retirement, now: float) -> bool:
        """Note that a name may have become outdated; return whether it must go here."""
        if name not in self.state.adapters or not retirement.is_outdated(name):
            return False
        self.retiring.setdefault(name, now)
        retirement.saw_older(name)
        return True

    def _has_other(self, place: Place, retirement: Retirement) -> bool:
        """Return whether it has loaded an adapter from another source than the declared one."""
        adapter = place.adapter
        source = self.ours.get(adapter.served_name)
        if source is None:
            return retirement.may_be_other(adapter.served_name)
        return source != adapter.source

    def plan(self, wanted: Mapping[str, Place]) -> None:
        """Take in what belongs there by a new plan. ``derive`` is to be called then."""
        self.wanted, self.is_planned = wanted, True

    def left_out(self) -> None:
        """Note that the last plan did not know it: what belonged there belongs elsewhere now."""
        self.wanted, self.is_planned = _NO_PLACES, False

    def sources_changed(self, before: Mapping[str, str]) -> None:
        """Note from where it loaded what has other sources now, unless that is known better."""
        for name in before.keys() & self.state.adapters.keys() if before else ():
            self.ours.setdefault(name, before[name])

    def put_last(self, name: str) -> None:
        """Load what is missing before an adapter that fails there."""
        place = self.missing.pop(name, None)
        if place is not None:
            self.missing[name] = place

    def put_first(self, place: Place) -> None:
        """Let an adapter belong there before the next plan.

        If host memory is full, the least urgent of the others no longer belongs there.
        """
        name = place.adapter.served_name
        others = {key: value for key, value in self.wanted.items() if key != name}
        if self.free <= 0:
            last = (key for key, value in reversed(others.items()) if not value.adapter.pinned)
            others.pop(next(last, ""), None)
        self.wanted = {name: place, **others}
        if name not in self.state.adapters:
            self.missing = {name: place, **self.missing}

    def loaded(self, name: str) -> None:
        """Note that a load of this router succeeded, and that its list has the adapter."""
        before, now = self.catalog, self.state.catalog
        if before is None:
            return
        added = hash((name, now.adapters.get(name)))
        if now is before or before.fingerprint ^ added == now.fingerprint:
            # Nothing else changed, so that the rest need not be derived again.
            self.missing.pop(name, None)
            self.catalog = now


def withdrawn_on(pod: PodLoads | None) -> tuple[str, ...]:
    """Return what a pod has and the fleet does not list, because it gets no more requests there."""
    if pod is None:
        return ()
    return pod.lost if pod.leaving is None else (pod.leaving.name, *pod.lost)


def unlisted_on(pod: PodLoads | None) -> tuple[str, ...]:
    """Return what a pod has, or soon may have, although the fleet does not list it."""
    if pod is None:
        return ()
    loading = () if pod.call is None else (pod.call.name,)
    return (*withdrawn_on(pod), *loading)
