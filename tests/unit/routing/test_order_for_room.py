"""Nobody who comes later gets the room for which others wait."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_state import PodState
from lora_router.routing.outcome import Routed
from lora_router.routing.overload import Overload
from lora_router.routing.waiting_queue import Held
from tests.fleet import make_fleet, make_metrics, state_of
from tests.parameters import mostly_slow
from tests.unit.routing.prompts import has_seen, prompt
from tests.unit.routing.router import Router

NAMES = [f"a{number}" for number in range(5)]
EVERYBODY_WAITS = 1e6
"""No request is refused early."""
QUEUES = Overload(sheds=True, max_expected_wait_seconds=EVERYBODY_WAITS)
SLOW = Overload(max_seconds_per_token=0.05)
SCRAPE_SECONDS = 0.25


class Pods:
    """Pods with many requests each, and a router that scrapes them."""

    def __init__(self, overload: Overload, count: int = 1, requests: int = 0) -> None:
        self.outliers = Outliers(HealthRules(), lambda: 100.0)
        self.fleet = make_fleet(count, adapters=NAMES, host_memory=99, outliers=self.outliers)
        self.router = Router(self.fleet, overload=overload, max_hold_seconds=60.0)
        self.generated: dict[PodState, float] = {}
        for state in self.fleet:
            self.scrape(state, running=0)
        self.running = [self.router.routed("base") for _ in range(count * requests)]

    def scrape(
        self, state: PodState, *, running: int, waiting: int = 0, seconds_per_token: float = 0.02
    ) -> None:
        more = SCRAPE_SECONDS * running / seconds_per_token
        self.generated[state] = self.generated.get(state, 0.0) + more
        metrics = replace(
            make_metrics(max_lora=8, scraped_at=self.router.clock.now()),
            running=float(running),
            waiting=float(waiting),
            deferred=0.0,
            generated_tokens=self.generated[state],
        )
        self.fleet.put_metrics(state, metrics)

    def scrape_often(self, seconds: float, **shown: float) -> None:
        for _ in range(int(seconds / SCRAPE_SECONDS)):
            for state in self.fleet:
                self.scrape(state, **shown)  # type: ignore[arg-type]
            self.router.clock.advance(SCRAPE_SECONDS)

    def hold(self, count: int) -> None:
        for number in range(count):
            self.router.held("base", f"waits-{number}")


def new_adapter(pods: Pods) -> None:
    models = [ServedModel("base"), *(ServedModel(name, "base") for name in (*NAMES, "new"))]
    pods.fleet.put_models(state_of(pods.fleet, 1), models)


def new_label(pods: Pods) -> None:
    pods.fleet.upsert(replace(state_of(pods.fleet, 1).pod, labels={"zone": "b"}))


def becomes_ready_again(pods: Pods) -> None:
    pod = state_of(pods.fleet, 1).pod
    pods.fleet.upsert(replace(pod, ready=False))
    pods.router.clock.advance(0.1)
    pods.fleet.upsert(pod)


def suspected_and_healed(pods: Pods) -> None:
    unwell, state = pods.outliers.unwell, state_of(pods.fleet, 1)
    unwell.suspect(state, "slow first bytes", pods.router.clock.now())
    pods.router.clock.advance(0.1)
    unwell.heal(state, pods.router.clock.now())


class TestWhatIsLearnedOfAPod:
    @pytest.mark.parametrize(
        "change", [new_adapter, new_label, becomes_ready_again, suspected_and_healed]
    )
    @pytest.mark.parametrize("overload", [QUEUES, SLOW])
    def test_stays_when_the_pod_changes(
        self, overload: Overload, change: Callable[[Pods], None]
    ) -> None:
        pods = Pods(overload, requests=40)
        pods.scrape_often(10.0, running=40, waiting=3, seconds_per_token=0.1)
        pods.hold(50)
        change(pods)
        pods.router.clock.advance(0.5)
        assert pods.router.late == []

    def test_is_forgotten_with_the_pod(self) -> None:
        pods = Pods(QUEUES, requests=40)
        pods.scrape_often(10.0, running=40, waiting=3)
        pods.hold(1)
        pod = state_of(pods.fleet, 1).pod
        pods.fleet.upsert(replace(pod, uid="another server"))
        new_adapter(pods)
        pods.router.clock.advance(0.1)
        assert pods.router.late_names == ["waits-0"]

    def test_what_was_before_a_time_without_scrapes_says_nothing(self) -> None:
        pods = Pods(QUEUES, requests=40)
        pods.scrape_often(1.0, running=40, waiting=3)
        pods.router.clock.advance(60.0)
        pods.scrape_often(1.0, running=40, waiting=3)
        assert isinstance(pods.router.send("base"), Routed)


class TestRoomForSeveral:
    def test_goes_to_all_of_one_queue_that_wait(self) -> None:
        pods = Pods(QUEUES, requests=40)
        pods.scrape_often(3.0, running=40, waiting=3)
        pods.hold(10)
        pods.scrape(state_of(pods.fleet, 1), running=40)  # It may have 3 more.
        pods.router.clock.advance(0.1)
        assert pods.router.late_names == ["waits-0", "waits-1", "waits-2"]
        pods.router.held("base")

    def test_goes_to_the_higher_priority_first(self) -> None:
        pods = Pods(QUEUES, requests=40)
        pods.router.director.priorities.put({"chat": 1})
        pods.scrape_often(3.0, running=40, waiting=3)
        pods.router.held("base", "low")
        for number in range(3):
            pods.router.held("base", f"high-{number}", objective="chat")
        pods.scrape(state_of(pods.fleet, 1), running=40)  # It may have 3 more.
        pods.router.clock.advance(0.1)
        assert pods.router.late_names == ["high-0", "high-1", "high-2"]

    def test_goes_to_the_others_after_one_that_has_its_home_there(self) -> None:
        pods = Pods(QUEUES, count=2, requests=40)
        pods.scrape_often(3.0, running=40, waiting=3)
        first = state_of(pods.fleet, 1)
        while first.in_flight < 3 * 40:
            pods.fleet.ledger.reserve(first, None)
        has_seen(pods.fleet, 1, *range(100), model="base")
        pods.router.held("base", "other")
        pods.router.held("base", "at home", read_prompt=lambda: prompt(*range(100), 1))
        pods.router.clock.advance(5.0)
        assert sorted(pods.router.late_names) == ["at home", "other"]

    def test_is_there_when_the_last_scrape_is_old(self) -> None:
        pods = Pods(QUEUES, requests=40)
        pods.scrape_often(3.0, running=40, waiting=3)
        pods.hold(10)
        pods.router.clock.advance(4.5)
        assert pods.router.late_names == []
        pods.router.clock.advance(0.5)
        assert len(pods.router.late_names) == 10

    def test_is_looked_at_in_turns_if_scraping_stops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pods = Pods(QUEUES, count=200)
        for state in pods.fleet:
            pods.fleet.ledger.reserve(state, None)
        pods.scrape_often(3.0, running=1, waiting=3)
        room, looks = pods.router.director.reception.pod_room, []
        monkeypatch.setattr(room, "on_old", lambda states: looks.append(len(states)))
        pods.router.clock.advance(6.0)
        assert sum(looks) == 200
        assert max(looks) <= 64


class TestAConversationThatWaitsForItsPod:
    """Both pods have three times as many requests as they may, and the first one its prompt."""

    LONG = range(100)

    def pods(self, model: str) -> Pods:
        pods = Pods(QUEUES, count=2, requests=4)
        pods.scrape_often(3.0, running=4, waiting=3)
        first, second = state_of(pods.fleet, 1), state_of(pods.fleet, 2)
        self.on_first = [pods.fleet.ledger.reserve(first, "a0") for _ in range(8)]
        for _ in range(9):
            pods.fleet.ledger.reserve(second, None)
        has_seen(pods.fleet, 1, *self.LONG, model=model)
        return pods

    def long(self, router: Router, model: str, name: str) -> Routed | Held:
        outcome = router.send(model, name, read_prompt=lambda: prompt(*self.LONG, hash(name)))
        assert isinstance(outcome, Routed | Held)
        return outcome

    @pytest.mark.parametrize("model", ["base", "a0"])
    def test_goes_there_before_one_that_comes_later(self, model: str) -> None:
        pods = self.pods(model)
        pods.router.held(model, "other", read_prompt=lambda: prompt(1, 2, 3))
        self.long(pods.router, model, "waits")
        pods.scrape_often(0.5, running=4, waiting=3)
        self.on_first.pop().release()
        assert pods.router.late_names == ["waits"]
        assert isinstance(self.long(pods.router, model, "later"), Held)

    def test_those_that_came_first_go_first_whatever_queue_they_are_in(self) -> None:
        pods = self.pods("base")
        for tenant in (1, 2, 3):
            for number in range(2):
                name = f"{tenant}-{number}"
                pods.router.held(
                    "base", name, tenant=tenant, read_prompt=lambda: prompt(*self.LONG, 1)
                )
        for reservation in self.on_first[:6]:
            pods.scrape_often(0.25, running=4, waiting=3)
            reservation.release()
        assert pods.router.late_names == ["1-0", "2-0", "3-0", "1-1", "2-1", "3-1"]

    def test_none_is_left_of_those_that_have_gone(self) -> None:
        pods = self.pods("base")
        waits = [self.long(pods.router, "base", f"waits-{number}") for number in range(3)]
        assert isinstance(waits[1], Held)
        waits[1].cancel()
        self.on_first.pop().release()
        pods.router.clock.advance(61.0)
        assert pods.router.director.held == 0
        assert len(pods.router.director.reception.room.roll.homes) == 0


class Overtaking:
    """Random events, of which none lets a newcomer overtake those that wait for the same."""

    def __init__(self, seed: int, overload: Overload, *, prompts: bool) -> None:
        self.chance = random.Random(seed)
        self.pods = Pods(overload, count=self.chance.choice([1, 2, 3]))
        self.prompts = prompts
        self.running: list[Routed] = []
        self.held: list[Held] = []
        self.number = 0

    @property
    def fleet(self) -> Fleet:
        return self.pods.fleet

    def comes(self) -> None:
        model, self.number = self.chance.choice(["base", "base", "a0", "a1"]), self.number + 1
        query: dict[str, object] = {}
        if self.prompts and self.chance.random() < 0.7:
            beginning = 1000 * self.chance.randrange(1, 4)
            chunks = (*range(beginning, beginning + 40), -self.number)
            query["read_prompt"] = lambda: prompt(*chunks)
        outcome = self.pods.router.send(model, str(self.number), **query)
        if isinstance(outcome, Held):
            self.held.append(outcome)
        elif isinstance(outcome, Routed):
            self.running.append(outcome)
            pod = outcome.reservation.state
            # A prompt may go to the pod that has its beginning, and the others must wait.
            overtaken = [
                each.number
                for each in self.held
                if each.question.model == model and (each.home is pod or not self.prompts)
            ]
            assert overtaken == []

    def happens(self) -> None:
        what, state = self.chance.random(), self.chance.choice(list(self.fleet))
        if what < 0.45:
            self.comes()
        elif what < 0.75 and self.running:
            self.running.pop(self.chance.randrange(len(self.running))).reservation.release()
        elif what < 0.93:
            running = max(1, min(state.in_flight, 4))
            waiting = self.chance.choice([0, 0, 1, 3])
            seconds_per_token = self.chance.choice([0.01, 0.1, 1.0])
            self.pods.scrape(
                state, running=running, waiting=waiting, seconds_per_token=seconds_per_token
            )
        elif what < 0.95:
            new_label(self.pods)
        elif what < 0.98:
            self.pods.router.clock.advance(self.chance.choice([0.3, 1.0, 2.5, 6.0]))
        elif self.held:
            self.chance.choice(self.held).cancel()
        self.pods.router.clock.advance(0.05)
        late = self.pods.router.late
        self.running += [outcome for _, outcome in late if isinstance(outcome, Routed)]
        late.clear()
        self.held = [each for each in self.held if each.queue is not None]


LIMIT = Overload(max_requests_per_pod=3)


@pytest.mark.parametrize("prompts", [False, True])
@pytest.mark.parametrize("overload", [QUEUES, SLOW, LIMIT], ids=["queues", "slow", "limit"])
@pytest.mark.parametrize("seed", mostly_slow(range(20), quick=3))
def test_nobody_overtakes_those_that_wait_for_the_same(
    seed: int, overload: Overload, *, prompts: bool
) -> None:
    events = Overtaking(seed, overload, prompts=prompts)
    for _ in range(300):
        events.happens()
