"""Write the generated tables of docs/simulator.md: ``make scenario-keys``. A test checks them."""

from collections.abc import Iterable
from dataclasses import MISSING
from pathlib import Path

from lora_router.simulator.autoscaler_keys import AutoscalerKeys
from lora_router.simulator.key_records import HasFields, Key, keys_of
from lora_router.simulator.router_keys import RouterEventKeys, RouterKeys, WireKeys
from lora_router.simulator.scenario import (
    Scenario,
    read_scenario,
    shipped_scenario,
    shipped_scenarios,
)
from lora_router.simulator.scenario_keys import OutageKeys, ScenarioKeys
from lora_router.simulator.traffic_keys import (
    BurstKeys,
    CrowdKeys,
    GoodputKeys,
    LoadKeys,
    LognormalKeys,
    LongPromptKeys,
    SessionKeys,
)

PAGE = Path(__file__).parent / "simulator.md"
_BENCH = Path(__file__).parent.parent / "bench" / "scenarios"


def with_tables(page: str) -> str:
    """Return the page with its tables up to date."""
    for name, text in (
        ("scenarios", _scenarios()),
        ("bench_scenarios", _bench_scenarios()),
        ("keys", _keys(ScenarioKeys)),
        ("lognormal", _keys(LognormalKeys)),
        ("long_prompts", _keys(LongPromptKeys)),
        ("sessions", _keys(SessionKeys)),
        ("goodput", _keys(GoodputKeys)),
        ("crowd", _keys(CrowdKeys)),
        ("bursts", _keys(BurstKeys)),
        ("load", _keys(LoadKeys)),
        ("autoscaler", _keys(AutoscalerKeys)),
        ("outages", _keys(OutageKeys)),
        ("router", _keys(RouterKeys)),
        ("wire", _keys(WireKeys)),
        ("router_events", _keys(RouterEventKeys)),
    ):
        before, begin, rest = page.partition(
            f"<!-- {name}: begin (made by `make scenario-keys`) -->\n"
        )
        _, end, after = rest.partition(f"<!-- {name}: end -->")
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


def _scenarios() -> str:
    rows = [_scenario(name, shipped_scenario(name)) for name in shipped_scenarios()]
    return _table(("scenario", "what it is", "requests/s", "capacity"), rows)


def _bench_scenarios() -> str:
    rows = [
        _scenario(f"bench/scenarios/{path.name}", read_scenario(path))
        for path in sorted(_BENCH.glob("*.yaml"))
    ]
    return _table(("scenario", "what it is", "requests/s", "capacity"), rows)


def _scenario(name: str, scenario: Scenario) -> tuple[str, ...]:
    capacity = scenario.keys.capacity
    return (
        f"`{name}`",
        scenario.about,
        f"{scenario.rate:g}",
        "" if capacity is None else f"{capacity:g}",
    )


def _keys(keys: type[HasFields]) -> str:
    rows = [
        (
            f"`{name}`",
            _allowed(declared),
            _default(default),
            declared.about,
        )
        for name, (declared, default) in keys_of(keys).items()
    ]
    return _table(("key", "allowed", "default", "meaning"), rows)


def _allowed(declared: Key) -> str:
    """Return what a key allows. The keys of a mapping have a table of their own."""
    return str(declared.kind).partition(" with the keys")[0]


def _default(value: object) -> str:
    """Return a default as a scenario file spells it."""
    if value is MISSING:
        return "required"
    if value is None or isinstance(value, GoodputKeys | RouterKeys):
        return "absent"
    if isinstance(value, tuple):
        return ", ".join(map(_default, value)) if len(value) == 1 else f"`{_listed(value)}`"
    return f"`{_spelled(value)}`"


def _listed(values: Iterable[object]) -> str:
    return f"[{', '.join(map(_spelled, values))}]"


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
