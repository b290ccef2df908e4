"""The director: candidates, counting, refusing, holding."""

import asyncio
import sys
from collections.abc import Callable, Sequence

import pytest

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from lora_router.routing.director import Director
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.waiting_queue import Held
from tests.fleet import Decisions, ManualClock, make_fleet, make_metrics, make_pod, state_of


class Scripted:
    """An algorithm whose ``pick`` is a function that the test provides."""

    name = "scripted"

    def __init__(self, pick: Callable[[InferenceRequest, Sequence[PodView]], object]) -> None:
        self._pick = pick
        self.asked: list[InferenceRequest] = []

    def pick(self, request: InferenceRequest, candidates: Sequence[PodView], now: float) -> Pick:
        self.asked.append(request)
        return self._pick(request, candidates)  # type: ignore[return-value]


class Bench:
    """A director with everything that it needs."""

    def __init__(
        self,
        fleet: Fleet | None = None,
        scripted: Scripted | None = None,
        *,
        default_model: str | None = None,
        max_hold_seconds: float = 30.0,
    ) -> None:
        self.fleet = make_fleet() if fleet is None else fleet
        self.clock = ManualClock()
        self.decisions = Decisions()
        least = LeastRequest(AlgorithmOptions())
        algorithms = {"least-request": least, "scripted": scripted or least}
        self.director = Director(
            self.fleet,
            algorithms,
            "scripted" if scripted else "least-request",
            self.clock,
            self.decisions,
            default_model=default_model,
            max_hold_seconds=max_hold_seconds,
        )
        self.late: list[Routed | Refused] = []

    def route(self, model: str = "sql-lora", **query: object) -> Routed | Refused | Held:
        return self.director.route(
            RouteQuery(model=model, **query),  # type: ignore[arg-type]
            self.late.append,
        )

    def routed(self, model: str = "sql-lora", **query: object) -> Routed:
        outcome = self.route(model, **query)
        assert isinstance(outcome, Routed)
        return outcome

    def refused(self, model: str = "sql-lora", **query: object) -> Refused:
        outcome = self.route(model, **query)
        assert isinstance(outcome, Refused)
        return outcome

    def held(self, **query: object) -> Held:
        outcome = self.route("sql-lora", **query)
        assert isinstance(outcome, Held)
        return outcome


class TestRouting:
    def test_the_next_request_already_sees_the_last_one(self) -> None:
        bench = Bench()

        first, second = bench.routed(), bench.routed()

        assert {first.address, second.address} == {"10.0.0.1:8000", "10.0.0.2:8000"}
        assert bench.fleet.ledger.total == 2

    def test_the_reservation_counts_the_adapter_and_not_the_base_model(self) -> None:
        bench = Bench(make_fleet(1))
        bench.routed("sql-lora")
        bench.routed("base")

        state = state_of(bench.fleet, 1)
        assert state.in_flight == 2
        assert state.in_flight_adapters == {"sql-lora": 1}

    def test_the_header_chooses_the_algorithm(self) -> None:
        scripted = Scripted(lambda _request, pods: Pick(pods[-1], "last"))
        bench = Bench(scripted=scripted)

        assert bench.routed(strategy="scripted").reason == "last"
        assert bench.routed(strategy="least-request").algorithm == "least-request"

    def test_only_pods_that_serve_the_model_are_candidates(self) -> None:
        fleet = make_fleet(2)
        fleet.put_models(state_of(fleet, 2), [ServedModel("base")])
        fleet.upsert(make_pod(2))

        bench = Bench(fleet)

        assert {bench.routed().address for _ in range(4)} == {"10.0.0.1:8000"}

    def test_an_unready_pod_gets_nothing_new(self) -> None:
        fleet = make_fleet(2)
        fleet.upsert(make_pod(1, ready=False))

        assert {Bench(fleet).routed().address for _ in range(4)} == {"10.0.0.2:8000"}

    def test_the_label_selector_narrows(self) -> None:
        fleet = make_fleet(2)
        fleet.upsert(make_pod(2, labels={"gpu": "h100"}))

        routed = Bench(fleet).routed(pod_filter="gpu=h100")

        assert routed.address == "10.0.0.2:8000"

    def test_the_gateways_subset_narrows(self) -> None:
        bench = Bench(make_fleet(3))

        subset = frozenset(["10.0.0.3:8000", "10.9.9.9:1"])

        assert bench.routed(subset=subset).address == "10.0.0.3:8000"
        passed = bench.director.pass_through(subset)
        assert isinstance(passed, Routed)
        assert passed.address == "10.0.0.3:8000"

    def test_the_default_model_stands_in_for_none(self) -> None:
        routed = Bench(default_model="base").routed("")

        assert routed.model == "base"

    def test_pass_through_takes_the_least_loaded_pod_and_counts(self) -> None:
        bench = Bench()
        bench.routed()

        passed = bench.director.pass_through()

        assert isinstance(passed, Routed)
        assert [state.in_flight for state in bench.fleet] == [1, 1]
        assert passed.model == ""


class TestRefusing:
    def test_no_model(self) -> None:
        assert Bench().refused("").refusal is Refusal.NO_MODEL

    def test_an_unknown_algorithm_lists_the_known_ones(self) -> None:
        refused = Bench().refused(strategy="best")

        assert refused.refusal is Refusal.UNKNOWN_ALGORITHM
        assert refused.known == ("least-request", "scripted")

    def test_the_refusal_of_a_bad_selector_names_the_error(self) -> None:
        refused = Bench().refused(pod_filter="gpu in (")

        assert refused.refusal is Refusal.BAD_SELECTOR
        assert refused.detail

    def test_a_selector_that_leaves_no_pod(self) -> None:
        assert Bench().refused(pod_filter="gpu=a100").refusal is Refusal.NONE_SELECTED

    def test_an_empty_subset_allows_nothing(self) -> None:
        bench = Bench()

        assert bench.refused(subset=frozenset()).refusal is Refusal.NONE_SELECTED
        passed = bench.director.pass_through(frozenset())
        assert isinstance(passed, Refused)
        assert passed.refusal is Refusal.NO_READY_POD

    def test_a_model_that_no_pod_lists_is_unknown(self) -> None:
        assert Bench().refused("gpt-9").refusal is Refusal.UNKNOWN_MODEL

    def test_a_model_is_not_unknown_while_a_pod_has_not_reported_its_models(self) -> None:
        fleet = make_fleet(1)
        fleet.upsert(make_pod(2))

        assert Bench(fleet).refused("gpt-9").refusal is Refusal.MODELS_UNKNOWN

    def test_a_model_that_only_unready_pods_serve_is_known(self) -> None:
        fleet = make_fleet(2)
        fleet.put_models(state_of(fleet, 2), [ServedModel("rare", "base")])
        fleet.upsert(make_pod(2, ready=False))

        assert Bench(fleet).refused("rare").refusal is Refusal.NO_READY_POD

    def test_no_pods_at_all(self) -> None:
        assert Bench(Fleet()).refused().refusal is Refusal.NO_READY_POD

    def test_every_refusal_is_counted_with_its_reason(self) -> None:
        bench = Bench()
        bench.refused("")
        bench.refused("gpt-9")

        assert bench.decisions.seen == [
            ("least-request", "refused", "no-model"),
            ("least-request", "refused", "unknown-model"),
        ]


class TestBrokenAlgorithms:
    @pytest.mark.parametrize(
        "answer",
        [
            lambda _request, _pods: 1 / 0,
            lambda _request, _pods: None,
            lambda _request, _pods: Pick(PodState(make_pod(9)), "an-address-of-its-own"),
            lambda _request, _pods: Pick(PodState(make_pod(1)), "a-known-name-another-record"),
            lambda _request, pods: Pick(pods[0], None),  # type: ignore[arg-type]
            lambda _request, pods: Pick(pods[0], b"bytes"),  # type: ignore[arg-type]
            lambda _request, _pods: Pick(None, "no-pod"),  # type: ignore[arg-type]
            lambda _request, _pods: Pick([], "not-hashable"),  # type: ignore[arg-type]
            lambda _request, _pods: Hold("wait", "5"),  # type: ignore[arg-type]
            lambda _request, _pods: Hold("wait", float("nan")),
            lambda _request, _pods: Hold("wait", float("inf")),
            lambda _request, _pods: Hold("wait", True),
            lambda _request, _pods: Hold("wait", 0.0),
            lambda _request, _pods: Hold("wait", -1.0),
            lambda _request, _pods: Hold("wait", 5.0, ask_again=-1.0),
            lambda _request, _pods: Hold(None, 5.0),  # type: ignore[arg-type]
            lambda _request, _pods: Hold("wait", 5.0, ask_again=None, closed=("pod-1", "a")),  # type: ignore[arg-type]
            lambda _request, _pods: Hold("wait", 5.0, closed=7),  # type: ignore[arg-type]
            lambda _request, _pods: Hold("wait", 5.0, ask_again=float("-inf")),
            lambda _request, _pods: Hold("wait", 5.0, wakes_on="free-slot"),  # type: ignore[arg-type]
            lambda _request, _pods: Hold("wait", 5.0, wanted=PodState(make_pod(9))),
            lambda _request, _pods: sys.exit(3),
            lambda _request, _pods: _raise(GeneratorExit()),
            lambda _request, _pods: _raise(asyncio.CancelledError()),
        ],
    )
    def test_least_request_steps_in(
        self, answer: Callable[[InferenceRequest, Sequence[PodView]], object]
    ) -> None:
        bench = Bench(scripted=Scripted(answer))

        routed = bench.routed()

        assert routed.reason == "algorithm-failed"
        assert routed.reservation.state in tuple(bench.fleet)

    def test_a_pod_that_is_known_and_not_a_candidate_gets_nothing(self) -> None:
        fleet = make_fleet(2)
        fleet.upsert(make_pod(2, labels={"gpu": "h100"}))
        other = state_of(fleet, 1)
        bench = Bench(fleet, Scripted(lambda _request, _pods: Pick(other, "elsewhere")))

        assert bench.routed(pod_filter="gpu=h100").address == "10.0.0.2:8000"

    def test_its_log_lines_are_limited_and_say_what_is_wrong(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench = Bench(scripted=Scripted(lambda _request, pods: Pick(pods[0], None)))  # type: ignore[arg-type]
        for _ in range(100):
            bench.routed()

        (record,) = caplog.records
        assert "algorithm scripted failed" in record.getMessage()
        assert "Pick.reason is NoneType, must be str" in record.getMessage()


class TestFailuresAfterThePick:
    """No request counts on its pod for ever that nobody can release."""

    def test_while_the_prompt_is_recorded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Asks(Scripted):
            reads_prompts = True

        bench = Bench(scripted=Asks(lambda _request, pods: Pick(pods[0], "first")))
        monkeypatch.setattr(bench.fleet.prefixes, "sent", lambda *_: _raise(MemoryError()))

        with pytest.raises(MemoryError):
            bench.route(read_prompt=lambda: Prompt(1.0, [1], [1.0], 4))

        assert bench.fleet.ledger.total == 0

    def test_while_waiting_requests_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def without_slot(_request: InferenceRequest, pods: Sequence[PodView]) -> object:
            return Pick(pods[0], "first", without_slot=True)

        bench = Bench(scripted=Scripted(without_slot))
        room = bench.director.reception.room
        monkeypatch.setattr(room, "joined", lambda *_: _raise(MemoryError()))

        with pytest.raises(MemoryError):
            bench.route()

        assert bench.fleet.ledger.total == 0


def _raise(error: BaseException) -> None:
    raise error


def hold_until_one_slot_is_free(_request: InferenceRequest, pods: Sequence[PodView]) -> object:
    """Pick a pod without requests in flight; hold if there is none."""
    free = [pod for pod in pods if not pod.in_flight]
    return Pick(free[0], "free") if free else Hold("no-slot", 5.0)


def hold_until_nobody_has_any_slot(_request: InferenceRequest, pods: Sequence[PodView]) -> object:
    free = [pod for pod in pods if not pod.beliefs.foreign_adapters]
    return Pick(free[0], "free") if free else Hold("no-slot", 5.0)


class TestHolding:
    def make(self, **options: float) -> tuple[Bench, Routed]:
        bench = Bench(make_fleet(1), Scripted(hold_until_one_slot_is_free), **options)  # type: ignore[arg-type]
        return bench, bench.routed()

    def test_a_held_request_is_routed_when_a_request_ends(self) -> None:
        bench, first = self.make()
        held = bench.held()
        assert bench.director.held == 1

        first.reservation.release()

        (late,) = bench.late
        assert isinstance(late, Routed)
        assert (late.reason, bench.director.held) == ("free", 0)
        assert held.seconds == 5.0
        assert bench.fleet.ledger.total == 1

    def test_first_come_first_served(self) -> None:
        bench, first = self.make()
        bench.held(request_id="second")
        bench.held(request_id="third")

        first.reservation.release()

        assert bench.director.held == 1
        (late,) = bench.late
        assert isinstance(late, Routed)
        late.reservation.release()
        assert len(bench.late) == 2

    def test_a_new_snapshot_and_a_new_pod_are_reasons_to_ask_again(self) -> None:
        scripted = Scripted(hold_until_one_slot_is_free)
        bench = Bench(make_fleet(1), scripted)
        bench.routed()
        bench.held()
        asked = len(scripted.asked)

        bench.fleet.put_metrics(state_of(bench.fleet, 1), make_metrics())
        assert len(scripted.asked) == asked + 1

        bench.fleet.upsert(make_pod(2, models=("base", "sql-lora")))
        (late,) = bench.late
        assert isinstance(late, Routed)
        assert late.address == "10.0.0.2:8000"

    def test_a_peers_share_is_a_reason_to_ask_again(self) -> None:
        bench = Bench(make_fleet(1), Scripted(hold_until_nobody_has_any_slot))
        there = make_fleet(1)
        busy = there.ledger.reserve(state_of(there, 1), "other-lora")
        bench.fleet.put_peer(there.report_to_peers("there", 0.1, {}, 0.0), 0.0)
        bench.held()

        busy.release()
        bench.fleet.put_peer(there.report_to_peers("there", 0.1, {}, 0.1), 0.1)

        (late,) = bench.late
        assert isinstance(late, Routed)

    def test_shares_contain_the_adapters_that_wait_and_since_when(self) -> None:
        bench, first = self.make()
        bench.held(request_id="second")
        bench.clock.advance(1.5)
        bench.held(request_id="third")
        assert bench.director.held_adapters() == {"sql-lora": HeldShare(1.5)}

        first.reservation.release()
        assert bench.director.held_adapters() == {"sql-lora": HeldShare(0.0)}

    def test_shares_contain_the_slots_that_an_algorithm_wants_and_closes(self) -> None:
        def wants(_request: InferenceRequest, pods: Sequence[PodView]) -> object:
            return Hold("wait", 5.0, wanted=pods[1], closed=(pods[0], "other-lora"))

        bench = Bench(make_fleet(2), Scripted(wants))
        bench.held()
        told = HeldShare(0.0, wanted="pod-2", closed=("pod-1", "other-lora"))
        assert bench.director.held_adapters() == {"sql-lora": told}

    def test_the_same_question_is_asked_once_in_a_round(self) -> None:
        scripted = Scripted(hold_until_one_slot_is_free)
        bench = Bench(make_fleet(1), scripted)
        bench.routed()
        for number in range(5):
            bench.held(request_id=str(number))
        asked = len(scripted.asked)

        bench.fleet.put_metrics(state_of(bench.fleet, 1), make_metrics())

        assert len(scripted.asked) == asked + 1
        assert bench.director.held == 5

    def test_when_the_time_is_up_the_last_question_forbids_a_hold_and_a_hold_means_overloaded(
        self,
    ) -> None:
        scripted = Scripted(hold_until_one_slot_is_free)
        bench = Bench(make_fleet(1), scripted)
        bench.routed()
        bench.held()

        bench.clock.advance(4.9)
        assert not bench.late
        bench.clock.advance(0.2)

        assert not scripted.asked[-1].may_hold
        (late,) = bench.late
        assert isinstance(late, Refused)
        assert late.refusal is Refusal.OVERLOADED
        assert bench.director.held == 0

    def test_an_algorithm_can_still_pick_when_the_time_is_up(self) -> None:
        def anywhere_in_the_end(request: InferenceRequest, pods: Sequence[PodView]) -> object:
            return Hold("wait", 1.0) if request.may_hold else Pick(pods[0], "late")

        bench = Bench(scripted=Scripted(anywhere_in_the_end))
        bench.held()
        bench.clock.advance(1.0)

        (late,) = bench.late
        assert isinstance(late, Routed)
        assert late.reason == "late"

    def test_a_client_that_leaves_is_forgotten(self) -> None:
        bench, first = self.make()
        held = bench.held()

        held.cancel()
        held.cancel()
        first.reservation.release()
        bench.clock.advance(60)

        assert not bench.late
        assert (bench.director.held, bench.fleet.ledger.total) == (0, 0)
        assert bench.decisions.seen.count(("scripted", "cancelled", "client-left")) == 1

    def test_the_setting_bounds_what_an_algorithm_asks_for(self) -> None:
        bench, _ = self.make(max_hold_seconds=2.0)

        assert bench.held().seconds == 2.0

    def test_with_holding_switched_off_the_pods_are_overloaded_at_once(self) -> None:
        bench, _ = self.make(max_hold_seconds=0.0)

        assert bench.refused().refusal is Refusal.OVERLOADED

    def test_pods_that_vanish_and_return_do_not_lose_the_held(self) -> None:
        bench, _ = self.make()
        bench.held()

        bench.fleet.replace([])
        assert not bench.late
        bench.fleet.replace([make_pod(1, models=("base", "sql-lora"))])

        (late,) = bench.late
        assert isinstance(late, Routed)

    def test_pods_that_do_not_return_end_in_no_ready_pod(self) -> None:
        bench, _ = self.make()
        bench.held()
        bench.fleet.replace([])
        bench.clock.advance(5.0)

        (late,) = bench.late
        assert isinstance(late, Refused)
        assert late.refusal is Refusal.NO_READY_POD

    def test_an_outcome_that_frees_a_slot_wakes_the_next(self) -> None:
        fleet = make_fleet(1)
        bench = Bench(fleet, Scripted(hold_until_one_slot_is_free))
        first = bench.routed()
        outcomes: list[Routed] = []

        def finish_at_once(outcome: Routed | Refused) -> None:
            assert isinstance(outcome, Routed)
            outcomes.append(outcome)
            outcome.reservation.release()

        for _ in range(3):
            bench.director.route(RouteQuery(model="sql-lora"), finish_at_once)
        first.reservation.release()

        assert len(outcomes) == 3
        assert (bench.director.held, fleet.ledger.total) == (0, 0)
