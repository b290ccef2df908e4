"""Does the next steps of pods, and starts the most useful calls, a limited number at a time."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count, islice
from typing import TypeAlias

from lora_router.adapters.call_limit import CallsLeft, limit_of
from lora_router.adapters.calls import Call, LoadsAdapters, Result
from lora_router.adapters.outcomes import Outcomes
from lora_router.adapters.pace import BURST_SECONDS, STALL_SHARE
from lora_router.adapters.pod_loads import Leaving, PodLoads
from lora_router.adapters.step_kinds import Load, Restore, Unload, Wait, Withdraw
from lora_router.adapters.steps import Surroundings, is_serving, next_step
from lora_router.clock import Clock
from lora_router.fleet.adapter_beliefs import AWAY
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.pod_work import Prefill

TICK_SECONDS = 0.25
"""How often ``start_calls`` is called at least."""
_LOOKS = 64
"""Pods of which the best ones get the next calls."""
_NAMES = 8192
"""Adapters that are compared in one turn to find one that makes room, on all of these pods."""
_LISTS = 16
"""Pods whose lists are changed in one turn, because an adapter is withdrawn or restored there."""

_Key: TypeAlias = tuple[int, float, bool]
"""By which the most useful call is first."""


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """How the loader loads."""

    loads_at_once: int | None = None
    """Pods that get calls at the same time (``call_limit``). ``None``: it depends on the fleet."""
    stall_share: float = STALL_SHARE
    """Part of a serving pod's time in which loads may stall it."""
    stall_burst_seconds: float = BURST_SECONDS
    """Stalled seconds that such a pod saves up."""
    grace_seconds: float = 0.3
    """Time from when an adapter is withdrawn to when it may be unloaded."""
    in_place: bool = False
    """Whether a changed source replaces the adapter under its name."""


class Dispatch:
    """The pods that have something to do now or later, and the calls under way."""

    def __init__(
        self,
        calls: LoadsAdapters,
        outcomes: Outcomes,
        clock: Clock,
        options: LoaderOptions,
        pods: Mapping[PodState, PodLoads],
        on_ended: Callable[[PodLoads, Call, Result], None],
        around: Callable[[], Surroundings],
    ) -> None:
        """Create it. It does nothing before ``active`` is set.

        Args:
            calls: Calls pods.
            outcomes: Applies what happens.
            clock: Time and timers.
            options: How to load.
            pods: The records of all pods. A record that is not in it has left.
            on_ended: Called after each call has been counted and its pod charged.
            around: Returns what the steps of all pods depend on.
        """
        self._calls = calls
        self._outcomes = outcomes
        self._clock = clock
        self._options = options
        self._pods = pods
        self._on_ended = on_ended
        self._around = around
        self.active = False
        """Whether calls may be started."""
        self.running: dict[PodState, PodLoads] = {}
        """Pods with a call under way, also those that have left."""
        self._hungry: OrderedDict[PodLoads, None] = OrderedDict()
        """Pods whose next step is looked for."""
        self._later: list[tuple[float, int, PodLoads]] = []
        """Pods whose next step is looked for at a time."""
        self._numbers = count()
        self._is_due = False
        self._lists_changed = 0

    def look_at(self, pod: PodLoads) -> None:
        """Look for the next step of a pod soon."""
        if self.active and pod.call is None:
            self._look_soon(pod)
            self.soon()

    def _look_soon(self, pod: PodLoads) -> None:
        self._hungry[pod] = None
        if pod.first:
            self._hungry.move_to_end(pod, last=False)

    def forget(self, pod: PodLoads) -> None:
        """Forget a pod that left."""
        self._hungry.pop(pod, None)

    def clear(self) -> None:
        """Start no more calls. Those under way end."""
        self.active = False
        self._hungry.clear()
        self._later.clear()

    def soon(self) -> None:
        """Start calls in the next turn of the loop: the fleet must not change in between."""
        if not self._is_due and self.active:
            self._is_due = True
            self._clock.call_later(0.0, self._start_now)

    def start_calls(self) -> None:
        """Do the steps that are due, and start calls on the pods where they are most useful."""
        if not self.active:
            return
        now = self._clock.now()
        self._wake(now)
        if not self._hungry:
            return
        around = self._around()
        found: list[tuple[_Key, int, PodLoads, Load | Unload]] = []
        self._lists_changed = names = 0
        for pod in tuple(islice(self._hungry, _LOOKS)):
            if self._lists_changed >= _LISTS:
                self.soon()
                break
            if names >= _NAMES:
                break
            del self._hungry[pod]
            if pod.missing and pod.free <= 0:
                names += len(pod.state.adapters)
            pod.put_off, pod.wake_at = "", float("inf")
            if pod.call is None and not pod.is_stale and self._pods.get(pod.state) is pod:
                step = self._step(pod, now, around)
                if step is not None:
                    found.append((_urgency(pod, step), next(self._numbers), pod, step))
        found.sort(key=lambda each: each[:2])
        self._start(found, now, around)

    def _start(
        self,
        found: list[tuple[_Key, int, PodLoads, Load | Unload]],
        now: float,
        around: Surroundings,
    ) -> None:
        """Start as many of some calls as may begin."""
        limit = limit_of(self._options.loads_at_once, len(self._pods))
        left = CallsLeft(limit, (pod.called_at for pod in self.running.values()), now)
        for _, _, pod, chosen in found:
            is_waited_for = isinstance(chosen, Unload) or chosen.is_first_use
            if _is_too_late(pod, chosen, now, around):
                self._look_soon(pod)
                self.soon()
            elif left.take(is_waited_for=is_waited_for):
                self._call(pod, chosen, now)
            else:
                self._look_soon(pod)
        if self._hungry and left.for_others:
            self.soon()

    def _step(self, pod: PodLoads, now: float, around: Surroundings) -> Load | Unload | None:
        """Do the next step of a pod, or return it if it is a call."""
        match next_step(pod, now, around):
            case Load() | Unload() as step:
                return step
            case Withdraw(name, why):
                due = now + self._options.grace_seconds
                pod.leaving = Leaving(name, due, why)
                self._lists_changed += 1
                self._calls.withdraw(pod.state, (name,))
                self._put_off(pod, Wait(due, ""), now)
            case Restore():
                self._outcomes.restore(pod)
                self._lists_changed += 1
                self._look_soon(pod)
            case Wait() as step:
                self._put_off(pod, step, now)
        return None

    def _start_now(self) -> None:
        self._is_due = False
        self.start_calls()

    def _wake(self, now: float) -> None:
        later = self._later
        while later and later[0][0] <= now:
            _, _, pod = heappop(later)
            if pod.wake_at <= now and self._pods.get(pod.state) is pod:
                self._hungry[pod] = None

    def _put_off(self, pod: PodLoads, wait: Wait, now: float) -> None:
        pod.put_off, pod.wake_at = wait.reason, wait.until
        heappush(self._later, (wait.until, next(self._numbers), pod))
        if wait.until - now < TICK_SECONDS:
            self._clock.call_later(max(0.0, wait.until - now), self.start_calls)

    def _call(self, pod: PodLoads, step: Load | Unload, now: float) -> None:
        state = pod.state
        if isinstance(step, Load):
            adapter = step.place.adapter
            name = adapter.served_name
            replaces = name in state.adapters
            doubted = self._outcomes.is_doubted(state, name)
            call = Call(state, "load", name, adapter.base_model, adapter.source, replaces, doubted)
        else:
            call = Call(state, "unload", step.name)
        pod.call, pod.called_at = call, now
        self.running[state] = pod
        around = self._around()
        around.proofs.began(pod, call)
        was_serving = is_serving(pod, around)
        stall = None
        if call.action == "load":
            stall = around.fleet.ledger.begin_stall(state, state.beliefs.load_seconds[AWAY])
        self._calls.start(call, partial(self._ended, pod, call, was_serving, stall))

    def _ended(
        self, pod: PodLoads, call: Call, was_serving: bool, stall: Prefill | None, result: Result
    ) -> None:
        del self.running[pod.state]
        around = self._around()
        around.proofs.ended(pod, call)
        if stall is not None:
            around.fleet.ledger.end_stall(pod.state, stall)
        pod.call = None
        now = self._clock.now()
        if call.action == "load" and (was_serving or pod.requests):
            pod.budget.spend(min(result.seconds, now - pod.called_at), now)
        self._on_ended(pod, call, result)
        self.soon()


def _is_too_late(pod: PodLoads, step: Load | Unload, now: float, around: Surroundings) -> bool:
    """Return whether another pod has just begun to load an adapter that no pod has."""
    return (
        isinstance(step, Load)
        and around.proofs.waits_until(pod, step.place.adapter, now) is not None
    )


def _urgency(pod: PodLoads, step: Load | Unload) -> _Key:
    """Return a key by which the most useful call is first."""
    if isinstance(step, Unload):
        return 0, 0.0, False
    if step.is_first_use:
        adapter = step.place.adapter
        since = pod.first.get(adapter.served_name, 0.0)
        return 2 if adapter.is_templated else 1, since, False
    return 4 if pod.fails else 3, pod.requests, step.place.reason == "spare-memory"
