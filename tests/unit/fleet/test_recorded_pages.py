"""The beliefs at each recorded page of a real vLLM, compared with what the server was doing.

The pages in ``tests/data/vllm-0.32.0`` come from one server with two slots and room for four
adapters in host memory. The requests that it received are known, so the truth is known: see
``MOMENTS``. The pages are replayed in order of time, through the reader and the fleet, for two
routers. One of them has sent all requests, the other none. ``TestWhatCannotBeKnown`` covers what
the pages leave open.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_router.fleet.adapter_beliefs import AdapterBeliefs
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.exposition import read_page
from tests.fleet import make_fleet, state_of

RECORDED = Path(__file__).parents[2] / "data" / "vllm-0.32.0"
WALL_NOW = 1.7954274e9
SLOTS = 2
IN_MEMORY = 4
"""The server's ``--max-cpu-loras``."""
ADAPTERS = ("a1", "a2", "a3", "a4", "a5")
MAX_AGE = 15.0


@dataclass(frozen=True)
class Moment:
    """A page, and the state of the server when it was recorded."""

    page: str
    at: float
    """Approximate seconds after the first page, according to the newest series."""
    since: str
    """The events since the previous page: ``+a1`` a request started, ``-a1`` it ended."""
    generating: frozenset[str]
    """Adapters with a request in the batch."""
    waiting: frozenset[str]
    """Adapters without a request in the batch, because they wait for a slot."""
    in_slots: frozenset[str]
    """Adapters in a slot, generating or not. Derived from the times of the series on page 12, which
    show when each adapter was last used, and from vLLM's rule: the least recently used adapter is
    evicted."""
    in_host_memory: frozenset[str]
    """Adapters in host memory, derived from the same times and the same rule, with four places."""

    def __str__(self) -> str:
        return self.page


def moment(page: str, at: float, since: str, *adapters: str) -> Moment:
    """Return a moment. ``adapters``: four strings of names, in the order of the fields."""
    return Moment(page, at, since, *(frozenset(names.split()) for names in adapters))


MOMENTS = (
    moment("01_fresh_before_any_request", 0, "", "", "", "", ""),
    moment("02_after_two_base_requests_idle", 9, "+base -base +base -base", "", "", "", ""),
    moment("04_one_lora_a1_in_flight", 34, "+base -base +a1", "a1", "", "a1", "a1"),
    moment("04c_a1_done_10s_idle", 52, "-a1", "", "", "a1", "a1"),
    moment("05_two_lora_a1_a2_in_flight", 53, "+a1 +a2", "a1 a2", "", "a1 a2", "a1 a2"),
    moment(
        "06_three_lora_one_waits_t1s",
        78,
        "-a1 -a2 +a2 +a1 -a2 -a1 +a3 -a3 +a1 +a2 +a3",
        *("a1 a2", "a3", "a1 a2", "a1 a2 a3"),
    ),
    moment("07_idle_10s_after_everything", 100, "-a1 -a2 -a3", "", "", "a2 a3", "a1 a2 a3"),
    moment(
        "12_after_unload_a5",
        162,
        "+a1 +a2 +a3 +a4 +a5 -a1 -a2 -a3 -a4 -a5",
        *("", "", "a4 a5", "a2 a3 a4 a5"),
    ),
)
BY_PAGE = {str(moment): moment for moment in MOMENTS}


START = b"process_start_time_seconds 1.79542710513e+09\n"
LATER_START = b"process_start_time_seconds 1.79542799e+09\n"


def read(page: str, scraped_at: float, start: bytes = START) -> PodMetrics:
    """Return the snapshot of a page, with another start time or (empty) with none."""
    data = (RECORDED / f"{page}.prom").read_bytes()
    assert START in data
    data = data.replace(START, start)
    return read_page(data, engine=None, scraped_at=scraped_at, wall_now=WALL_NOW)


class Router:
    """One router's view of the server, up to a page."""

    def __init__(self, until: Moment, ours: tuple[str, ...], start: bytes = START) -> None:
        self.fleet: Fleet = make_fleet(1, adapters=ADAPTERS, host_memory=IN_MEMORY)
        self.state: PodState = state_of(self.fleet, 1)
        self.open: dict[str, Reservation] = {}
        for moment in MOMENTS:
            self.play(moment, ours, start)
            if moment is until:
                break

    @property
    def beliefs(self) -> AdapterBeliefs:
        return self.state.beliefs

    @property
    def resident(self) -> set[str]:
        return {name for name in ADAPTERS if self.beliefs.is_resident(name)}

    @property
    def in_host_memory(self) -> set[str]:
        return {name for name in ADAPTERS if self.beliefs.in_host_memory(name)}

    def play(self, moment: Moment, ours: tuple[str, ...], start: bytes) -> None:
        """Send and end this router's part of the requests, and apply the page."""
        for event in moment.since.split():
            name = event[1:]
            if name not in ours:
                continue
            if event[0] == "+":
                adapter = name if name in ADAPTERS else None
                self.open[name] = self.fleet.ledger.reserve(self.state, adapter)
            else:
                self.open.pop(name).release()
        self.fleet.put_metrics(self.state, read(moment.page, moment.at, start))


def alone(until: Moment, start: bytes = START) -> Router:
    """Return the router that sent all requests."""
    return Router(until, ("base", *ADAPTERS), start)


def onlooker(until: Moment, *ours: str) -> Router:
    """Return a router that sent only the requests for some adapters, or none."""
    return Router(until, ours)


AFTER_THE_FIRST_REQUEST = MOMENTS[1:]


def test_before_the_first_request_nothing_is_believed() -> None:
    beliefs = alone(MOMENTS[0]).beliefs

    assert beliefs.slots is None
    assert beliefs.free_slots is None
    assert beliefs.active == frozenset()


@pytest.mark.parametrize("moment", AFTER_THE_FIRST_REQUEST, ids=str)
class TestOurOwn:
    """The router that has sent all requests knows everything."""

    def test_slots_and_those_that_generate(self, moment: Moment) -> None:
        beliefs = alone(moment).beliefs

        assert beliefs.slots == SLOTS
        assert beliefs.active == moment.generating

    def test_what_is_in_flight_whether_it_generates_or_waits(self, moment: Moment) -> None:
        beliefs = alone(moment).beliefs

        assert beliefs.expected.keys() == moment.generating | moment.waiting

    def test_nothing_is_treated_as_foreign(self, moment: Moment) -> None:
        beliefs = alone(moment).beliefs

        assert beliefs.foreign_adapters == frozenset()
        assert beliefs.foreign_requests == 0

    def test_whether_a_request_waits_and_what_is_free(self, moment: Moment) -> None:
        beliefs = alone(moment).beliefs

        assert beliefs.somebody_waits == bool(moment.waiting)
        assert beliefs.free_slots == SLOTS - len(moment.generating)

    def test_what_is_in_slots_idle_or_not(self, moment: Moment) -> None:
        assert alone(moment).resident == moment.in_slots


@pytest.mark.parametrize("moment", AFTER_THE_FIRST_REQUEST, ids=str)
class TestOthers:
    """The router that has sent nothing sees adapters with a first token, and how many wait."""

    def test_slots_and_those_that_generate(self, moment: Moment) -> None:
        beliefs = onlooker(moment).beliefs

        assert beliefs.slots == SLOTS
        assert beliefs.active == moment.generating
        assert beliefs.foreign_adapters == moment.generating

    def test_how_many_requests_are_there(self, moment: Moment) -> None:
        """Each adapter has one request."""
        beliefs = onlooker(moment).beliefs

        assert beliefs.foreign_requests == len(moment.generating) + len(moment.waiting)

    def test_whether_a_request_waits_and_what_is_free(self, moment: Moment) -> None:
        beliefs = onlooker(moment).beliefs

        assert beliefs.somebody_waits == bool(moment.waiting)
        assert beliefs.free_slots == SLOTS - len(moment.generating)

    def test_those_that_generate_are_in_slots(self, moment: Moment) -> None:
        assert onlooker(moment).resident >= moment.generating

    def test_a_stale_page_shows_nothing_about_others_any_more(self, moment: Moment) -> None:
        beliefs = onlooker(moment).beliefs
        later = moment.at + MAX_AGE + 0.1

        beliefs.forget_old(later, MAX_AGE)
        assert beliefs.foreign_adapters == frozenset()
        assert beliefs.free_slots == SLOTS


class TestInPart:
    """Some of the three requests on a server with two slots are ours."""

    MOMENT = BY_PAGE["06_three_lora_one_waits_t1s"]

    def test_one_that_generates_is_ours(self) -> None:
        beliefs = onlooker(self.MOMENT, "a1").beliefs

        assert beliefs.foreign_adapters == {"a2"}
        assert beliefs.foreign_requests == 2
        assert beliefs.free_slots == 0

    def test_the_one_that_waits_is_ours(self) -> None:
        router = onlooker(self.MOMENT, "a3")

        assert router.beliefs.foreign_adapters == {"a1", "a2"}
        assert router.beliefs.foreign_requests == 2
        assert router.resident == {"a1", "a2"}
        assert router.beliefs.free_slots == 0


class TestWhatCannotBeKnown:
    """What vLLM 0.32.0 does not show to a router that did not send the requests."""

    def test_which_adapter_waits(self) -> None:
        """It is known that one waits, so no slot is free. Its name is nowhere on the page."""
        moment = BY_PAGE["06_three_lora_one_waits_t1s"]
        beliefs = onlooker(moment).beliefs

        assert moment.waiting == {"a3"}
        assert beliefs.somebody_waits
        assert "a3" not in beliefs.active | beliefs.foreign_adapters

    def test_what_came_and_went_between_two_pages(self) -> None:
        """The adapter a3 ran last of all and took the slot of a1.

        Its series on the page contains the time at which it ended, but only the newest series is
        read.
        """
        moment = BY_PAGE["07_idle_10s_after_everything"]

        assert moment.in_slots == {"a2", "a3"}
        assert onlooker(moment).resident == {"a1", "a2"}

    def test_whether_an_idle_adapter_is_still_in_its_slot(self) -> None:
        """The adapters a4 and a5 occupy both slots, and the page is as empty as the one before."""
        moment = BY_PAGE["12_after_unload_a5"]

        assert moment.in_slots == {"a4", "a5"}
        assert onlooker(moment).resident == {"a1", "a2"}

    @pytest.mark.parametrize("moment", AFTER_THE_FIRST_REQUEST, ids=str)
    def test_the_router_that_sent_everything_knows_host_memory(self, moment: Moment) -> None:
        """No page shows how much fits: discovery knows the size."""
        assert alone(moment).in_host_memory == moment.in_host_memory


class TestMergedPage:
    """A page of two API servers: each value of the series of adapters is a sum of two times."""

    @pytest.mark.parametrize(
        ("ours", "page", "free"),
        [
            pytest.param((), "06_three_lora_one_waits_t1s", 0, id="somebody waits for a slot"),
            pytest.param((), "05_two_lora_a1_a2_in_flight", 2, id="strangers are not named"),
            pytest.param(("a1",), "05_two_lora_a1_a2_in_flight", 1, id="the ledger names ours"),
            pytest.param((), "07_idle_10s_after_everything", 2, id="idle"),
        ],
    )
    def test_the_ledger_fills_the_slots_that_it_states(
        self, ours: tuple[str, ...], page: str, free: int
    ) -> None:
        fleet = make_fleet(1, adapters=ADAPTERS)
        state = state_of(fleet, 1)
        for adapter in ours:
            fleet.ledger.reserve(state, adapter)

        fleet.put_metrics(state, merged(page))

        assert state.beliefs.slots == SLOTS
        assert state.beliefs.active == state.beliefs.foreign_adapters == frozenset()
        assert state.beliefs.free_slots == free
        assert state.beliefs.foreign_requests == len(BY_PAGE[page].generating) + len(
            BY_PAGE[page].waiting
        ) - len(ours)

    def test_it_comes_from_the_same_server_as_a_page_that_names_adapters(self) -> None:
        router = alone(BY_PAGE["05_two_lora_a1_a2_in_flight"], b"")

        router.fleet.put_metrics(router.state, merged("06_three_lora_one_waits_t1s"))

        assert router.beliefs.slots == SLOTS
        assert router.resident == {"a1", "a2"}


def merged(page: str) -> PodMetrics:
    """Return the snapshot of a page as two API servers would show it."""
    lines = (RECORDED / f"{page}.prom").read_text().replace(START.decode(), "").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("vllm:lora_requests_info{"):
            labels, value = line.rsplit(" ", 1)
            lines[number] = f"{labels} {2 * float(value)}"
    data = "\n".join(lines).encode()
    return read_page(data, engine=None, scraped_at=100.0, wall_now=WALL_NOW)


class TestRestart:
    """After the last page, the first one is read again, as a page of another process."""

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            pytest.param(START, LATER_START, id="another start time"),
            pytest.param(b"", b"", id="no start time but fewer tokens"),
        ],
    )
    def test_all_is_forgotten_but_what_is_in_flight(self, before: bytes, after: bytes) -> None:
        router = alone(MOMENTS[-1], before)
        assert router.in_host_memory == MOMENTS[-1].in_host_memory
        router.fleet.ledger.reserve(router.state, "a1")

        router.fleet.put_metrics(router.state, read(MOMENTS[0].page, 500.0, after))

        assert router.in_host_memory == {"a1"}
        assert router.beliefs.slots is None
        assert router.beliefs.expected == {"a1": 1}
