"""Expected waits of adapters that wait already, and of those that come again after a stall."""

from dataclasses import replace

import pytest

from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.overload import Overload
from lora_router.routing.pace import Pace
from lora_router.routing.refusal import Refused
from lora_router.routing.waiting_queue import Held
from tests.fleet import make_fleet, make_metrics
from tests.unit.routing.router import Router

NAMES = [f"a{number}" for number in range(60)]


class OneAfterTheOther(Router):
    """One slot, which eight adapters had for some seconds each, so that the pace is known."""

    def __init__(self, seconds: float, *, tenants: bool = False) -> None:
        fleet = make_fleet(1, adapters=NAMES, host_memory=99)
        for state in fleet:
            metrics = replace(make_metrics(max_lora=1, scraped_at=100.0), running=0.0)
            fleet.put_metrics(state, metrics)
            state.beliefs.load_seconds = 0.0, 0.1, 0.1
        super().__init__(fleet, overload=Overload(sheds=True))
        self.director.priorities.put({"chat": 1})
        self.running = self.routed("a0")
        for number in range(1, 9):
            self.held(NAMES[number], tenant=number if tenants else 0)
            self.clock.advance(seconds)
            self.serve_one()

    def serve_one(self) -> None:
        self.running.reservation.release()
        outcome = self.late[-1][1]
        assert isinstance(outcome, Routed)
        self.running = outcome

    def told(self, model: str, **query: object) -> str:
        """Return what would be decided about a request, as the router tells it."""
        query_ = RouteQuery(model, **query)  # type: ignore[arg-type]
        return self.director.explainer.explain(query_).answer


class TestAnAdapterThatWaitsAlready:
    """Its requests leave together, whoever sent them."""

    def test_is_not_refused_to_a_higher_priority_while_it_is_held_for_a_lower_one(self) -> None:
        router = OneAfterTheOther(1.5)
        router.held("a20")
        for name in NAMES[21:25]:
            router.send(name, objective="chat")
        router.clock.advance(1.0)
        assert isinstance(router.send("a30", objective="chat"), Refused)

        assert router.told("a20") == router.told("a20", objective="chat") == "hold"
        router.held("a20", objective="chat")

    def test_is_not_refused_to_one_tenant_while_it_is_held_for_another(self) -> None:
        router = OneAfterTheOther(1.5, tenants=True)
        router.held("a20", tenant=50)
        for number in range(21, 26):
            router.send(NAMES[number], tenant=number)
        assert isinstance(router.send("a30", tenant=60), Refused)

        assert router.told("a20", tenant=60) == "hold"
        router.held("a20", tenant=60)

    def test_is_estimated_again_when_the_first_estimate_has_passed(self) -> None:
        router = OneAfterTheOther(1.0)
        for name in NAMES[20:24]:
            router.held(name)

        router.clock.advance(15.0)  # The pod stands still.

        assert router.told("a23") == "refuse"
        refused = router.send("a23")
        assert isinstance(refused, Refused)
        assert (refused.wait or 0.0) > 6.0
        assert isinstance(router.send("a20"), Held), "a slot would be closed for the first one"

    def test_is_held_again_when_slots_become_free_again(self) -> None:
        router = OneAfterTheOther(1.0)
        for name in NAMES[20:24]:
            router.held(name)
        router.clock.advance(15.0)
        for _ in range(2):
            router.serve_one()
            router.clock.advance(0.5)

        assert router.told("a23") == "hold"


class TestWhenToTryAgain:
    def pace(self) -> Pace:
        """Ten grants a second."""
        pace = Pace()
        pace.start(0.0)
        for number in range(200):
            pace.granted(0.1 * (number + 1))
        return pace

    def test_is_when_those_before_are_served_at_the_usual_pace(self) -> None:
        pace = self.pace()
        assert pace.retry_seconds(9, 20.0) == pytest.approx(1.0, rel=0.1)
        assert pace.retry_seconds(9, 20.0) == pytest.approx(pace.seconds_for(9, 20.0), rel=0.2)

    def test_counts_a_stall_once_while_it_lasts(self) -> None:
        pace = self.pace()
        assert pace.retry_seconds(49, 80.0) == pytest.approx(60.0 + 5.0, rel=0.1)

    def test_counts_it_no_more_when_it_is_over(self) -> None:
        pace = self.pace()
        for number in range(10):
            pace.granted(80.0 + 0.1 * number)
        late = pace.seconds_for(49, 81.0)
        assert late is not None
        assert late > 30.0, "the pace itself follows slowly"
        assert pace.retry_seconds(49, 81.0) == pytest.approx(5.0, rel=0.4)

    def test_follows_a_pace_that_is_slower_for_good(self) -> None:
        pace = self.pace()
        for number in range(100):
            pace.granted(20.0 + number)
        assert pace.retry_seconds(9, 119.0) == pytest.approx(10.0, rel=0.2)

    def test_takes_those_that_come_here_from_what_this_router_gets(self) -> None:
        pace = Pace()
        pace.start(0.0)
        for second in range(20):
            pace.hear(float(second), peers_wait=True, granted=3)
            pace.granted(second + 0.5)
        assert pace.retry_seconds(3, 20.0) == pytest.approx(1.0, rel=0.1)
        assert pace.retry_seconds(-1, 20.0, 4) == pytest.approx(4.0, rel=0.15)

    def test_a_refusal_after_a_stall_does_not_send_clients_away_for_minutes(self) -> None:
        router = OneAfterTheOther(1.0)
        for name in NAMES[20:24]:
            router.held(name)
        for name in NAMES[24:40]:  # The pod stands still.
            router.clock.advance(3.0)
            router.send(name)
        router.serve_one()
        router.clock.advance(1.0)

        refused = next(
            each for name in NAMES[40:] if isinstance(each := router.send(name), Refused)
        )
        assert (refused.wait or 0.0) < 30.0
