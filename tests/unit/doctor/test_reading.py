"""What is read from the pages of a router."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import pytest

from lora_router.debug import pages as kinds
from lora_router.debug.client import DebugPageError
from lora_router.doctor.facts import Adapter
from lora_router.doctor.reading import LOOKS, METRICS, _metrics, read_facts
from lora_router.fleet.pod_metrics import PodMetrics
from tests.fleet import make_fleet, make_metrics, state_of
from tests.pages import DOCS
from tests.unit.debug.debugged import Debugged, pages

METRICS_PAGE = """
# HELP lora_router_loop_stalls_total Stalls.
# TYPE lora_router_loop_stalls_total counter
lora_router_loop_stalls_total 2.0
lora_router_slots_lacking{base_model="base"} 3.0
lora_router_requests_total{algorithm="x",outcome="routed",reason="y"} 9.0
"""


class Client:
    """Reads the pages of routers without a network."""

    def __init__(self, *routers: Debugged, silent: tuple[str, ...] = ()) -> None:
        self.routers = routers
        self.silent = silent
        self.shown: list[int] = []
        """Requests that the page of the first pod shows at each look at the facts."""

    async def page(self, kind: type[Any], query: Mapping[str, str] | None = None) -> Any:
        names: Mapping[type[Any], str] = {
            kinds.RoutersPage: "routers",
            kinds.AdaptersPage: "adapters",
            kinds.DecisionsPage: "decisions",
            kinds.FactsPage: "facts",
        }
        if kind is kinds.FactsPage and self.shown:
            fleet = self.routers[0].fleet
            metrics = PodMetrics(0.0, self.shown.pop(0), 0.0, lora=make_metrics().lora)
            fleet.put_metrics(state_of(fleet, 1), metrics)
        made = await pages(*self.routers, silent=self.silent).show(names[kind], query or {})
        if made.status != 200:
            raise DebugPageError(made.body.decode())
        return msgspec.json.decode(made.body, type=kind)

    async def get(self, path: str, statuses: Collection[int] = (200,)) -> bytes:
        if path == "/readyz":
            assert 503 in statuses
            return json.dumps({"ready": False, "reason": "shutting down"}).encode()
        assert path == "/metrics"
        return METRICS_PAGE.encode()


def test_a_label_may_have_what_ends_a_line_elsewhere() -> None:
    page = 'lora_router_slots_lacking{base_model="a\x1c\x85\u2028b"} 3.0\n'

    [(labels, value)] = _metrics(page.encode())["lora_router_slots_lacking"]

    assert (labels, value) == ({"base_model": "a\x1c\x85\u2028b"}, 3.0)


@pytest.mark.parametrize(
    "line",
    [
        "lora_router_slots_lacking",
        "lora_router_slots_lacking{base_model=",
        'lora_router_slots_lacking{base_model="a} 3.0',
        'lora_router_slots_lacking{="a"} 3.0',
        "lora_router_slots_lacking three",
        "lora_router_slots_lacking 1.0 many",
    ],
)
def test_a_page_of_metrics_that_cannot_be_read_is_an_error(line: str) -> None:
    with pytest.raises(DebugPageError, match="/metrics is no page of a lora-router"):
        _metrics(f"{line}\n".encode())


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e999"])
def test_a_metric_without_a_finite_number_is_left_out(value: str) -> None:
    assert _metrics(f"lora_router_loop_stalls_total {value}\n".encode()) == {}


@pytest.mark.asyncio
async def test_facts_are_read_from_all_pages() -> None:
    router = Debugged(name="b")
    router.routed("sql-lora")
    router.record("1", details="upstream_response_timeout", status=504)
    router.record("2", outcome="cancelled", held_for="no-slot", held_seconds=5.0)
    router.record("3", outcome="cancelled")
    client = Client(router, Debugged(router.fleet, name="a"), silent=("c",))
    facts = await read_facts(client, pause_seconds=0.0)  # type: ignore[arg-type]

    assert [each.name for each in facts.routers] == ["b", "a"], "the one that was asked is first"
    assert facts.unreachable == ["c"]
    assert [pod.name for pod in facts.pods] == ["pod-1", "pod-2"]
    assert facts.adapters == [Adapter("sql-lora", "base", listed=2, requests=0, busy=True)]
    assert facts.readiness == {"ready": False, "reason": "shutting down"}
    assert facts.metrics == {
        "lora_router_loop_stalls_total": [({}, 2.0)],
        "lora_router_slots_lacking": [({"base_model": "base"}, 3.0)],
    }
    assert facts.details == {"upstream_response_timeout": 1}
    assert facts.given_up == [5.0]


@pytest.mark.asyncio
async def test_only_requests_that_every_look_shows_are_those_of_strangers() -> None:
    client = Client(Debugged(make_fleet(1)))
    client.shown = [5, 3, 6]
    assert len(client.shown) == LOOKS
    facts = await read_facts(client, pause_seconds=0.0)  # type: ignore[arg-type]
    assert [pod.strangers for pod in facts.pods] == [3]


def test_every_metric_that_is_read_exists() -> None:
    source = DOCS.parent / "src/lora_router"
    text = "".join(file.read_text() for file in source.rglob("*.py") if "doctor" not in file.parts)
    for name in METRICS:
        assert f'"{name}"' in text or f'"{name.removesuffix("_total")}"' in text, name
