"""Which adapters are idle but probably loaded, and what peers are told of them.

``reported_uses`` is what peers tell this router.
"""

from collections.abc import Mapping
from itertools import islice

from lora_router.fleet.adapter_beliefs import AdapterBeliefs
from lora_router.fleet.last_uses import ELSEWHERE, date, latest
from lora_router.fleet.peer_ledgers import UsedShare
from lora_router.fleet.pod_state import PodState

_LEAST_TOLD = 32
"""How many idle adapters of a pod are listed, even if it has fewer slots (host memory)."""


def idle_on(beliefs: AdapterBeliefs, now: float, most: int = _LEAST_TOLD) -> dict[str, float]:
    """Return a pod's idle adapters that are probably loaded, with the seconds since their last use.

    Return nothing if the server reports what it has loaded: then every router can read that.
    """
    uses = beliefs.last_uses
    if beliefs.residency is not None or not uses:
        return {}
    in_flight = beliefs.expected.keys() | beliefs.foreign_adapters
    return latest(uses, in_flight, min(most, max(beliefs.slots or 0, _LEAST_TOLD)), now)


def idle_by_pod(states: Mapping[str, PodState], now: float, most: int) -> dict[str, UsedShare]:
    """Return up to ``most`` idle adapters that are probably loaded, by pod name."""
    found = {}
    each = max(1, most // max(1, len(states)))
    for name, state in islice(states.items(), most):
        idle = idle_on(state.beliefs, now, each)
        if idle:
            found[name] = UsedShare(_server(state), idle)
    return found


def used_since(states: Mapping[str, PodState], now: float) -> dict[str, UsedShare]:
    """Return the adapters whose requests began and ended since this router's last share.

    Must be called before the next share is made: all uses since the last call get their time.

    Args:
        states: The pods, by name.
        now: Seconds on the clock of ``PodMetrics.scraped_at``.
    """
    used = {}
    for name, state in states.items():
        adapters = _date_uses(state.beliefs, now)
        if adapters:
            used[name] = UsedShare(_server(state), dict.fromkeys(adapters, 0.0))
    return used


def _date_uses(beliefs: AdapterBeliefs, now: float) -> list[str]:
    used = beliefs.last_uses
    if not used or used[next(reversed(used))] < ELSEWHERE:
        return []  # So it is on most pods.
    reported, expected = beliefs.peers.reported, beliefs.expected
    mine = date(used, now)
    return [name for name in mine if name not in expected and name not in reported]


def _server(state: PodState) -> tuple[str, str]:
    return state.pod.address, state.pod.uid
