"""What peers report of adapters that are not in flight: it adds to what is believed of pods.

Rules:

- It applies to the same server only, and only to adapters that the pod serves. If the models of the
  pod, or the pod itself, are not known yet, it waits for them.
- Adapters that came and went between two reports were used now. The others have the times of their
  last uses. A peer reports them every few seconds, so a list that follows sooner is ignored.
- It is applied in steps, because it may name every pod of a large fleet. What a peer reports before
  all steps are done adds to what is left of its uses, and a newer list of idle adapters takes the
  place of the rest of an older one. What is left of the uses of one peer is bounded: beyond
  ``_MAX_LEFT``, only the newest report counts.
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
"""To how many pods it is applied in one step."""
_LIST_SECONDS = 1.0
"""The shortest time between two lists of one peer. It bounds the work that a peer can cause."""
_WAIT_SECONDS = 15.0
_MAX_WAITING = 8_000
"""Adapters and pods that may wait."""
_MAX_LEFT = 8_000
"""Adapters and pods of one peer that may be left to be applied, beside the newest report."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    server: tuple[str, str]
    uses: dict[str, float]
    since: float


@dataclass(slots=True, eq=False)
class _Left:
    """What is left to be applied of the reports of one peer."""

    used: dict[str, UsedShare]
    """By pod name: what was used between two reports."""
    used_at: float
    """When the last of these reports arrived."""
    rows: int
    """The adapters and pods that were added to ``used``."""
    idle: dict[str, UsedShare]
    """By pod name."""
    listed_at: float
    """When this list arrived."""


class ReportedUses:
    """Applies what shares say of idle adapters, and keeps what cannot be applied yet."""

    def __init__(self) -> None:
        self._listed_at: dict[str, float] = {}
        """When the last list of each peer arrived."""
        self._left: dict[str, _Left] = {}
        """By peer."""
        self._waiting: dict[str, _Waiting] = {}
        """By pod name, the last one that was put there at the end."""
        self._rows = 0
        """The adapters and pods in ``_waiting``."""

    def put(
        self, share: LedgerShare, states: Mapping[str, PodState], now: float, tell: Tell
    ) -> Steps[None]:
        """Return the steps that apply what a share says of uses, and what is left of earlier ones.

        Args:
            share: The share.
            states: All pods, by name, also when the steps are done.
            now: The time.
            tell: Called with the adapters that are new, for each pod.
        """
        router = share.router
        if share.used:
            _add(self._left.setdefault(router, _Left({}, now, 0, {}, now)), share.used, now)
        if share.idle and now - self._listed_at.get(router, -_LIST_SECONDS) >= _LIST_SECONDS:
            self._listed_at[router] = now
            self._drop_old(now)
            left = self._left.setdefault(router, _Left({}, now, 0, {}, now))
            left.idle, left.listed_at = dict(share.idle), now
        return self._apply_rest(router, states, tell)

    def _apply_rest(self, router: str, states: Mapping[str, PodState], tell: Tell) -> Steps[None]:
        """Apply what is left of the reports of a peer."""
        while (left := self._left.get(router)) is not None:
            are_recent = bool(left.used)
            reported, at = (left.used, left.used_at) if are_recent else (left.idle, left.listed_at)
            some = list(islice(reported.items(), _AT_ONCE))
            for name, _ in some:
                del reported[name]
            if not left.used:
                left.rows = 0
            if not (left.used or left.idle):
                del self._left[router]
            tell(self._apply(some, states, at, are_recent=are_recent))
            if left.used or left.idle:
                yield

    def forget(self, router: str, states: Mapping[str, PodState], tell: Tell) -> Steps[None]:
        """Forget when a peer reported.

        What it reported of uses stays true. So the steps that are returned apply what is left of
        it. The arguments are those of ``put``.
        """
        self._listed_at.pop(router, None)
        return self._apply_rest(router, states, tell)

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


def _add(left: _Left, used: Mapping[str, UsedShare], now: float) -> None:
    """Add what a report says was used to what is left of the same peer's earlier reports."""
    rows = len(used) + sum(len(share.adapters) for share in used.values())
    if left.rows + rows > _MAX_LEFT:
        left.used, left.rows = {}, 0
    left.rows += rows
    left.used_at = now
    for name, share in used.items():
        before = left.used.get(name)
        if before is not None and before.server == share.server:
            left.used[name] = UsedShare(share.server, {**before.adapters, **share.adapters})
        else:
            left.used[name] = share
