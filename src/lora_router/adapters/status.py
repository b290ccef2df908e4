"""How far each declared adapter is as declared: for commands, debug pages, and tests.

``rows_in_steps`` makes the rows in slices, because there can be thousands of adapters and pods::

    for rows in rows_in_steps(loader):
        ...  # use them
        await asyncio.sleep(0)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, TypeAlias

from lora_router.adapters.backoff import refused_until
from lora_router.adapters.declared import DeclaredAdapter
from lora_router.adapters.fit_counts import FitCount, FitCounts
from lora_router.adapters.loader import Loader
from lora_router.adapters.pod_loads import PodLoads
from lora_router.fleet.pod_state import PodState

State: TypeAlias = Literal["loaded", "partly", "loading", "failing", "waiting", "unplaced"]
"""In a word:

- ``loaded``: on all pods on which it belongs, and on as many as it declares.
- ``partly``: on some of them.
- ``loading``: on none yet, and a pod loads it.
- ``failing``: on none, and a pod failed to load it.
- ``waiting``: on none, and its turn has not come.
- ``unplaced``: it belongs nowhere: no pod is fit, or none has room.
"""
MAX_PODS = 64
"""Pods of each kind that a row names. The numbers count all."""
_ROWS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Failing:
    """A pod that failed to load or to unload an adapter."""

    pod: str
    action: str
    reason: str
    failures: int
    """In a row."""
    next_try_in: float
    """Seconds."""


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """One declared adapter. Pods are named as in the fleet."""

    adapter: DeclaredAdapter
    state: State
    wanted_count: int
    """Pods on which it belongs."""
    wanted: Sequence[str]
    loaded_count: int
    """Ready pods that list it."""
    loaded: Sequence[str]
    loading: Sequence[str]
    """Pods that load it now."""
    failing_count: int
    failing: Sequence[Failing]
    unplaced_because: str = ""
    """Why it belongs nowhere, or on fewer pods than it declares; empty: it does not."""


@dataclass(frozen=True, slots=True)
class PodStatus:
    """One pod, as the loader sees it."""

    pod: str
    missing: int
    """Adapters that it is to load."""
    call: str
    """What it does now, such as ``load sql-lora``; empty: nothing."""
    put_off: str
    """Why its next step is put off: a word of ``steps.REASONS``; empty: it is not."""
    cannot_load: str
    """Why it takes no calls; empty: it does."""


def rows_in_steps(
    loader: Loader, wanted: Callable[[DeclaredAdapter], bool] = lambda _: True
) -> Iterator[Sequence[AdapterStatus]]:
    """Yield the rows of declared adapters in slices of about a millisecond each.

    Args:
        loader: The loader.
        wanted: Returns whether an adapter is of interest.
    """
    loading: dict[str, list[str]] = {}
    for pod in loader.running.values():
        if pod.call is not None and pod.call.action == "load":
            loading.setdefault(pod.call.name, []).append(pod.state.pod.name)
    counts = FitCounts(loader.fleet, partial(why_blocked, loader))
    left = iter(tuple(loader.retirement.declared.values()))
    while some := tuple(islice(left, _ROWS_AT_ONCE)):
        yield [row_of(loader, each, loading, counts) for each in some if wanted(each)]


def row_of(
    loader: Loader,
    adapter: DeclaredAdapter,
    loading: dict[str, list[str]],
    counts: FitCounts,
) -> AdapterStatus:
    """Return the row of one adapter.

    Args:
        loader: The loader.
        adapter: The adapter.
        loading: The pods that load an adapter now, by served name.
        counts: Counts the pods on which it may be.
    """
    name, now = adapter.served_name, loader.now()
    wanted = loader.plan.by_name.get(name, ())
    loaded = loader.fleet.serving(name).pods
    failures = loader.failures.of_adapter(name)
    # While no pod has it, many refusals put off the next try on all of them. If it has no place,
    # others must make room for it first.
    refused = float("-inf") if loaded else refused_until(failures.values())
    if not wanted:
        refused = max(refused, loader.proofs.evicts_at(name))
    failing = [
        Failing(
            state.pod.name,
            failure.action,
            failure.reason,
            failure.count,
            max(0.0, refused - now, failure.next_at - now, _blocked_until(loader, state) - now),
        )
        for state, failure in islice(failures.items(), MAX_PODS)
    ]
    busy = loading.get(name, ())
    count = counts.of(adapter)
    declared = _declared(adapter, count)
    state = _state(
        len(wanted), declared, len(loaded), is_loading=bool(busy), is_failing=bool(failing)
    )
    why = ""
    if state == "unplaced":
        why = count.why_nowhere()
    elif not failing and max(len(wanted), len(loaded)) < declared:
        lacking = declared - max(len(wanted), len(loaded))
        why = f"{lacking} of the {declared} copies that it declares have no place now"
    return AdapterStatus(
        adapter,
        state,
        len(wanted),
        tuple(state.pod.name for state in islice(wanted, MAX_PODS)),
        len(loaded),
        tuple(state.pod.name for state in islice(loaded, MAX_PODS)),
        tuple(busy),
        len(failures),
        failing,
        why,
    )


def pod_status(pod: PodLoads) -> PodStatus:
    """Return the row of one pod (``Loader.pods``)."""
    call = pod.call
    return PodStatus(
        pod.state.pod.name,
        len(pod.missing),
        "" if call is None else f"{call.action} {call.name}",
        pod.put_off,
        pod.blocked_reason,
    )


def why_blocked(loader: Loader, state: PodState) -> str:
    """Return why a pod takes no loads; empty: it does, or the loader has not looked at it."""
    pod = loader.pods.get(state)
    if pod is None:
        return ""
    if not pod.has_known_memory:
        return "its host memory is not known: /metrics has not been read"
    return pod.blocked_reason


def _blocked_until(loader: Loader, state: PodState) -> float:
    pod = loader.pods.get(state)
    return 0.0 if pod is None else pod.blocked_until


def _declared(adapter: DeclaredAdapter, count: FitCount) -> int:
    """Return on how many pods an adapter is to be by its declaration, if so many are fit."""
    pods = adapter.pods
    if pods.everywhere:
        return count.fit
    return min(pods.copies or 0, count.fit)


def _state(wanted: int, declared: int, loaded: int, *, is_loading: bool, is_failing: bool) -> State:
    if loaded >= max(1, wanted, declared):
        return "loaded"
    if loaded:
        return "partly"
    if is_loading:
        return "loading"
    if is_failing:
        return "failing"
    return "waiting" if wanted else "unplaced"
