"""What peers report of adapters that are not in flight: it adds to what is believed of pods.

Rules:

- It applies to the same server only, and only to adapters that the pod serves. If the models of the
  pod, or the pod itself, are not known yet, it waits for them.
- Adapters that came and went between two reports were used now. The others have the times of their
  last uses. A peer reports them every few seconds, so a list that follows sooner is ignored.
- A list of idle adapters is applied in steps, because it may name every pod of a large fleet.
- What waits is bounded. After ``_WAIT_SECONDS`` it is dropped: the peer has reported it again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from lora_router.fleet.peer_ledgers import LedgerShare, UsedShare
from lora_router.fleet.pod_state import PodState
from lora_router.steps import Steps

Tell = Callable[[Mapping[PodState, list[str]]], None]
"""Receives the adapters of which something is new, for each pod."""

_AT_ONCE = 128
"""Of how many pods a list of idle adapters is applied in one step."""
_LIST_SECONDS = 1.0
"""The shortest time between two lists of one peer. It bounds the work that a peer can cause."""
_WAIT_SECONDS = 15.0
_MAX_WAITING = 8_000
"""Adapters and pods that may wait."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    server: tuple[str, str]
    uses: dict[str, float]
    since: float


class ReportedUses:
    """Applies what shares say of idle adapters, and keeps what cannot be applied yet."""

    def __init__(self) -> None:
        self._listed_at: dict[str, float] = {}
        """When the last list of each peer was applied."""
        self._waiting: dict[str, _Waiting] = {}
        """By pod name, the last one that was put there at the end."""
        self._rows = 0
        """The adapters and pods in ``_waiting``."""

    def put(
        self, share: LedgerShare, states: Mapping[str, PodState], now: float, tell: Tell
    ) -> Steps[None]:
        """Return the steps that apply what a share says of uses.

        Args:
            share: The share.
            states: All pods, by name, also when the steps are done.
            now: The time.
            tell: Called with the adapters that are new, for each pod.
        """
        idle: Mapping[str, UsedShare] = {}
        if share.idle and now - self._listed_at.get(share.router, -_LIST_SECONDS) >= _LIST_SECONDS:
            self._listed_at[share.router] = now
            self._drop_old(now)
            idle = share.idle
        return self._apply_in_steps(share.used, idle, states, now, tell)

    def _apply_in_steps(
        self,
        used: Mapping[str, UsedShare],
        idle: Mapping[str, UsedShare],
        states: Mapping[str, PodState],
        now: float,
        tell: Tell,
    ) -> Steps[None]:
        if used:
            tell(self._apply(used.items(), states, now, are_recent=True))
        left = iter(idle.items())
        some = list(islice(left, _AT_ONCE))
        while some:
            tell(self._apply(some, states, now, are_recent=False))
            some = list(islice(left, _AT_ONCE))
            if some:
                yield

    def forget(self, router: str) -> None:
        """Forget when a peer reported. What it reported of uses stays true."""
        self._listed_at.pop(router, None)

    def settle(self, state: PodState) -> list[str]:
        """Apply what waited for the models of a pod; return the adapters that it is about."""
        pod = state.pod
        waiting = self._waiting.get(pod.name)
        if not state.models_known or waiting is None or waiting.server != (pod.address, pod.uid):
            return []
        self._take(pod.name)
        served = state.adapters
        return state.beliefs.learn(
            {name: at for name, at in waiting.uses.items() if name in served}
        )

    def _apply(
        self,
        reported: Iterable[tuple[str, UsedShare]],
        states: Mapping[str, PodState],
        now: float,
        *,
        are_recent: bool,
    ) -> Mapping[PodState, list[str]]:
        changed: dict[PodState, list[str]] = {}
        for name, share in reported:
            state = states.get(name)
            if state is None or not state.models_known:
                self._wait(name, share, now)
                continue
            if share.server != (state.pod.address, state.pod.uid):
                continue
            served = state.adapters
            if are_recent:
                news = [adapter for adapter in share.adapters if adapter in served]
                state.beliefs.used_elsewhere(news)
            else:
                news = state.beliefs.learn(
                    {name: now - age for name, age in share.adapters.items() if name in served}
                )
            if news:
                changed[state] = news
        return changed

    # What waits for the models of its pod

    def _wait(self, name: str, share: UsedShare, now: float) -> None:
        uses = {adapter: now - age for adapter, age in share.adapters.items()}
        if name in self._waiting:
            before = self._take(name)
            if before.server == share.server:
                for adapter, at in before.uses.items():
                    uses[adapter] = max(at, uses.get(adapter, at))
        rows = 1 + len(uses)
        if self._rows + rows <= _MAX_WAITING:
            self._waiting[name] = _Waiting(share.server, uses, now)
            self._rows += rows

    def _take(self, name: str) -> _Waiting:
        waiting = self._waiting.pop(name)
        self._rows -= 1 + len(waiting.uses)
        return waiting

    def _drop_old(self, now: float) -> None:
        for name, waiting in tuple(self._waiting.items()):
            if now - waiting.since <= _WAIT_SECONDS:
                break
            self._take(name)
