"""The goals of the request path, in instructions (``bench.instructions``)."""

from collections.abc import Callable, Iterator, Sequence

from bench import held, large_fleet, prompts
from bench.builtin_requests import MESSAGES, requests_by_observation
from bench.fleets import PROMPT_CHUNKS, BenchFleet, TickingClock
from bench.instructions import Counter, Part
from bench.observed import records
from bench.plan import DEFAULT_ALGORITHM

_RECORD, _ALL = 2.0, 5.0
_PROMPTS = {"prompt, 1 KB": 10.0, "prompt, 220 KB": 150.0, "prompt, 220 KB of 450 turns": 150.0}
_DECISION = 30.0
_RELEASE = 100.0
_RELEASES = 64
_WARM_UP = 10_000
_HELD = ((872, 32), (5_000, 200))


def _observed() -> Iterator[Part]:
    """Yield what it costs to record, count and tell decisions."""
    yield Part("record", records()["record"], warm_up=1000)
    for algorithm in ("least-request", DEFAULT_ALGORITHM):
        nothing, recorded, everything = requests_by_observation(algorithm).items()
        # Each adapter once, so that it does not matter which of them are asked for.
        yield Part(*nothing, MESSAGES, warm_up=_WARM_UP)
        yield Part(*recorded, MESSAGES, _RECORD, beyond=nothing[0], warm_up=_WARM_UP)
        yield Part(*everything, MESSAGES, _ALL, beyond=nothing[0], warm_up=_WARM_UP)


def _prompts() -> Iterator[Part]:
    """Yield what it costs to read prompts."""
    for name, call in prompts.parts((1_000, 220_000)).items():
        if name in _PROMPTS:
            yield Part(name, call, 50, _PROMPTS[name], warm_up=50)


def _decisions() -> Iterator[Part]:
    """Yield what decisions with all terms cost, and requests for cold adapters."""
    for pods in (8, 100, 1000):
        fleet = BenchFleet(pods, clock=TickingClock())
        name = f"decision, {DEFAULT_ALGORITHM}, {pods} pods"
        yield Part(name, fleet.pick(DEFAULT_ALGORITHM), goal=_DECISION, warm_up=1000)
        name = f"decision, {DEFAULT_ALGORITHM}, a prompt of {PROMPT_CHUNKS} chunks, {pods} pods"
        yield Part(name, fleet.pick(DEFAULT_ALGORITHM, chats=True), goal=_DECISION, warm_up=1000)
        name = f"request for an adapter that was never asked for, {pods} pods"
        yield Part(name, _cold(fleet), 200)
    for size in large_fleet.PROMPT_SIZES:
        for kind, call in large_fleet.kinds(size):
            name = f"decision with all terms, {size // 1000} KB: {kind}"
            yield Part(name, call, 300, _DECISION, warm_up=300)


def _cold(fleet: BenchFleet) -> Callable[[], object]:
    names = iter(fleet.never_asked)
    return lambda: fleet.route(model=next(names))


def _held() -> Iterator[Part]:
    """Yield what a release costs while requests are held."""
    for count, pods in _HELD:
        full = held.FullFleet(pods, count)
        for later in ("", held.LATER):
            if later:
                full.let_pass(held.PATIENCE_SECONDS)
            name = held.row_name(held.A_SLOT + later, count, pods)
            yield Part(name, full.release_a_slot, _RELEASES, _RELEASE, prepare=full.refill)


GROUPS = {"observed": _observed, "prompts": _prompts, "decisions": _decisions, "held": _held}


def count(groups: Sequence[str]) -> None:
    """Count the parts of some groups, and print the counts."""
    counter = Counter()
    for group in groups:
        for part in GROUPS[group]():
            print(counter.of(part), flush=True)
