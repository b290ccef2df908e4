"""Requests for unknown models wait while the pods are asked again what they serve."""

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.second_look import MAX_WAITING, SECONDS
from lora_router.routing.waiting_queue import Held
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.routing.router import Router


class Looking(Router):
    """A router whose scraper can look again."""

    def __init__(self, fleet: Fleet | None = None, *, max_hold_seconds: float = 600.0) -> None:
        super().__init__(fleet or make_fleet(2), max_hold_seconds=max_hold_seconds)
        self.rounds = 0
        self.director.second_look.look = self.look

    def look(self) -> bool:
        self.rounds += 1
        return True

    def load(self, adapter: str) -> None:
        """An adapter is loaded, and the round finds it."""
        state = state_of(self.fleet, 2)
        self.fleet.put_models(state, [ServedModel("base"), ServedModel(adapter, "base")])
        self.director.second_look.ended()


def test_an_adapter_that_was_just_loaded_is_found() -> None:
    router = Looking()
    router.held("new")

    router.load("new")

    [(_, outcome)] = router.late
    assert isinstance(outcome, Routed)
    assert outcome.address == "10.0.0.2:8000"


def test_a_name_that_no_pod_serves_is_refused_after_the_round() -> None:
    router = Looking()
    router.held("invented")

    router.director.second_look.ended()

    assert router.late == [("invented", Refused(Refusal.UNKNOWN_MODEL, model="invented"))]


def test_fresh_lists_need_no_round() -> None:
    router = Looking()
    router.director.second_look.look = lambda: False

    assert isinstance(router.send("invented"), Refused)


def test_a_round_that_takes_too_long_is_not_waited_for() -> None:
    router = Looking()
    router.held("invented")

    router.clock.advance(SECONDS)

    assert [outcome.__class__ for _, outcome in router.late] == [Refused]


def test_a_client_that_leaves_is_forgotten() -> None:
    router = Looking()
    router.held("new").cancel()

    router.load("new")

    assert router.late == []
    assert router.fleet.ledger.total == 0
    assert len(router.director.second_look) == 0


def test_clients_that_invent_names_cannot_fill_the_memory() -> None:
    router = Looking()

    outcomes = [router.send(f"invented-{number}") for number in range(MAX_WAITING + 10)]

    assert sum(isinstance(outcome, Held) for outcome in outcomes) == MAX_WAITING
    router.director.second_look.ended()
    router.clock.advance(1.0)
    assert len(router.late) == MAX_WAITING
    assert len(router.director.second_look) == 0


def test_after_the_round_its_algorithm_may_hold_it() -> None:
    fleet = make_fleet(2)
    router = Looking(fleet)
    for number in (1, 2):
        fleet.put_metrics(state_of(fleet, number), make_metrics(max_lora=1))
    held = router.held("new")
    running = [fleet.ledger.reserve(state_of(fleet, number), "other") for number in (1, 2)]

    router.load("new")
    assert router.late == []
    assert router.director.held == 1
    running[1].release()

    [(_, outcome)] = router.late
    assert isinstance(outcome, Routed)
    assert held.seconds > SECONDS


def test_and_a_client_that_leaves_then_is_forgotten_too() -> None:
    fleet = make_fleet(2)
    router = Looking(fleet)
    for number in (1, 2):
        fleet.put_metrics(state_of(fleet, number), make_metrics(max_lora=1))
    held = router.held("new")
    for number in (1, 2):
        fleet.ledger.reserve(state_of(fleet, number), "other")
    router.load("new")

    held.cancel()

    assert router.director.held == 0


def test_a_gateway_that_cannot_hold_gets_a_refusal_at_once_and_the_retry_succeeds() -> None:
    router = Looking(max_hold_seconds=0.0)

    assert router.send("new") == Refused(Refusal.UNKNOWN_MODEL, model="new")
    assert router.rounds == 1
    router.load("new")

    assert router.routed("new").address == "10.0.0.2:8000"


def test_what_is_said_of_an_unknown_name_where_no_request_is_held() -> None:
    told = [
        Looking(max_hold_seconds=seconds).director.explainer.explain(RouteQuery("new")).detail
        for seconds in (0.0, 30.0)
    ]
    assert told == [
        "the lists of all pods are read once more meanwhile",
        "the lists of all pods are read once more first",
    ]


def test_a_router_that_stops_does_not_wait_for_the_round() -> None:
    router = Looking()
    router.held("new")

    router.director.drain(1.0)
    router.clock.advance(0.9)
    assert router.late == []
    router.clock.advance(0.2)

    # Another router may know it by then: 404 would be final.
    assert router.late == [("new", Refused(Refusal.SHUTTING_DOWN, model="new"))]


def test_a_router_that_stops_at_once_decides_each_of_them() -> None:
    router = Looking()
    for number in range(40):
        router.held(f"new-{number}")

    router.director.drain(0.0)
    router.clock.advance(0.1)

    assert len(router.late) == 40
    assert len(router.director.second_look) == 0
    late = router.send("another")
    assert isinstance(late, Refused)
    assert late.refusal is Refusal.SHUTTING_DOWN
