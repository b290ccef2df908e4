"""What becomes of names that no pod lists, and of adapters without pods."""

import pytest

from lora_router.fleet.answer import Answer
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_state import PodState
from lora_router.routing.algorithm import Hold, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.model_names import DENIED_SECONDS, NamePolicy, Special
from lora_router.routing.model_rewrites import Rewrite, Target
from lora_router.routing.refusal import Refusal, Refused
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.routing.router import Router

FALLS_BACK = NamePolicy(falls_back=True)
LOADS = NamePolicy(unknown="base", unknown_base="base")
FOUND = Answer(200, details="via_upstream")
NOT_FOUND = Answer(404, details="via_upstream")


class Looking(Router):
    """A router whose scraper can look again."""

    def __init__(self, names: NamePolicy, fleet: Fleet | None = None) -> None:
        super().__init__(fleet or make_fleet(2), names=names)
        self.rounds = 0
        self.director.second_look.look = self.look
        self.asked: list[PodState] = []
        self.fleet.changes.doubted.subscribe(self.asked.extend)

    def look(self) -> bool:
        self.rounds += 1
        return True

    def answer(self, model: str, answer: Answer) -> None:
        """Send a request, and answer it as a pod."""
        routed = self.routed(model)
        routed.reservation.answered(answer)
        self.director.names.answered(routed.reservation, answer)
        routed.reservation.release()


class HoldsAdapters:
    """Holds each request for an adapter for ever."""

    name = "holds-adapters"

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick | Hold:
        if request.adapter is not None:
            return Hold("busy", 5.0)
        return Pick(candidates[0], "first")


class TestRewrites:
    def test_the_target_is_routed_and_counted(self) -> None:
        names = NamePolicy((Rewrite("gpt-small", (Target("sql-lora"),)),))
        router = Router(make_fleet(1), names=names)

        routed = router.routed("gpt-small")

        assert (routed.model, routed.reservation.adapter) == ("sql-lora", "sql-lora")

    def test_a_rewrite_comes_before_a_served_model(self) -> None:
        names = NamePolicy((Rewrite("sql-lora", (Target("base"),)),))

        assert Router(make_fleet(1), names=names).routed("sql-lora").model == "base"

    def test_rewrites_may_change_and_those_of_the_settings_come_first(self) -> None:
        names = NamePolicy((Rewrite("a", (Target("base"),)),))
        router = Router(make_fleet(1), names=names)
        further = [Rewrite("a", (Target("x"),)), Rewrite("b", (Target("sql-lora"),))]

        router.director.names.replace_rewrites(further)

        assert [router.routed(name).model for name in ("a", "b")] == ["base", "sql-lora"]
        assert router.director.names.may_change
        router.director.names.replace_rewrites(())
        assert isinstance(router.send("b"), Refused)

    def test_the_refusal_names_what_was_looked_for(self) -> None:
        router = Router(make_fleet(1), names=NamePolicy((Rewrite("a", (Target("gone"),)),)))

        assert router.send("a") == Refused(Refusal.UNKNOWN_MODEL, model="gone")


class TestReject:
    def test_an_unknown_name_is_refused_at_once(self) -> None:
        router = Looking(NamePolicy(unknown="reject"))

        assert router.send("new") == Refused(Refusal.UNKNOWN_MODEL, model="new")
        assert router.rounds == 0
        assert router.decisions.seen == [("lora-placement", "refused", "unknown-model")]


class TestUnknownToABaseModel:
    def test_it_counts_as_an_adapter_of_the_base_model(self) -> None:
        router = Looking(LOADS)

        routed = router.routed("new")

        assert (routed.model, routed.reservation.adapter) == ("new", "new")
        assert routed.special is Special.UNLISTED
        assert routed.reservation.state.in_flight_adapters == {"new": 1}

    def test_a_pod_that_answers_is_asked_for_its_list(self) -> None:
        router = Looking(LOADS)

        router.answer("new", FOUND)

        assert len(router.asked) == 1

    def test_a_known_model_needs_no_list(self) -> None:
        router = Looking(LOADS)

        router.answer("sql-lora", FOUND)

        assert router.asked == []

    def test_a_name_that_a_pod_denies_is_refused_for_some_seconds(self) -> None:
        router = Looking(LOADS)

        router.answer("invented", NOT_FOUND)

        assert router.rounds == 1
        assert router.send("invented") == Refused(Refusal.UNKNOWN_MODEL, model="invented")
        router.clock.advance(DENIED_SECONDS)
        assert router.routed("invented").special is Special.UNLISTED

    def test_a_denied_name_takes_no_slot(self) -> None:
        router = Looking(LOADS, make_fleet(1))
        state = state_of(router.fleet, 1)
        router.fleet.put_metrics(state, make_metrics(max_lora=2, scraped_at=100.0))
        routed = router.routed("invented")
        assert state.beliefs.free_slots == 1

        routed.reservation.answered(NOT_FOUND)
        router.director.names.answered(routed.reservation, NOT_FOUND)

        assert (state.in_flight, dict(state.in_flight_adapters)) == (1, {})
        assert state.beliefs.free_slots == 2
        assert not state.beliefs.is_resident("invented")
        routed.reservation.release()
        assert state.in_flight == 0

    def test_a_name_that_an_unready_pod_lists_is_not_loaded_elsewhere(self) -> None:
        fleet = make_fleet(1)
        fleet.upsert(make_pod(2, ready=False, models=("base", "known")))

        assert Looking(LOADS, fleet).send("known") == Refused(Refusal.NO_READY_POD, model="known")

    def test_without_a_pod_of_the_base_model_the_client_may_come_back(self) -> None:
        fleet = Fleet()
        fleet.replace([make_pod(1)])
        fleet.put_models(state_of(fleet, 1), [ServedModel("other")])

        assert Looking(LOADS, fleet).send("new") == Refused(Refusal.NO_READY_POD, model="new")

    @pytest.mark.slow
    def test_names_that_clients_invent_do_not_fill_memory(self) -> None:
        router = Looking(LOADS)
        names = router.director.names

        for number in range(5_000):
            router.answer(f"invented-{number}", NOT_FOUND)

        assert len(names._denied) <= 1024
        assert {reason for _, _, reason in router.decisions.seen} == {"placed"}
        for state in router.fleet:
            assert len(state.beliefs.last_uses) == 0

    def test_it_may_be_held_and_is_routed_when_its_time_is_up(self) -> None:
        router = Router(make_fleet(1), HoldsOnce(), names=LOADS)
        router.held("new")

        router.clock.advance(10)

        [(_, outcome)] = router.late
        assert not isinstance(outcome, Refused)
        assert (outcome.special, outcome.reservation.adapter) == (Special.UNLISTED, "new")


class HoldsOnce:
    """Holds each request, and picks when its time is up."""

    name = "holds-once"

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick | Hold:
        return Hold("busy", 5.0) if request.may_hold else Pick(candidates[0], "first")


class TestFallback:
    def unready(self) -> Fleet:
        """Return a fleet whose pod with the adapter is not ready."""
        fleet = make_fleet(1, adapters=())
        fleet.upsert(make_pod(2, ready=False, models=("base", "sql-lora")))
        return fleet

    def test_an_adapter_without_a_ready_pod_falls_back(self) -> None:
        router = Router(self.unready(), names=FALLS_BACK)

        routed = router.routed("sql-lora")

        assert (routed.model, routed.address) == ("base", "10.0.0.1:8000")
        assert (routed.special, routed.reason) == (Special.FELL_BACK, "base-fallback")
        assert routed.reservation.adapter is None
        assert router.decisions.seen == [("lora-placement", "routed", "base-fallback")]

    def test_without_the_setting_it_is_refused(self) -> None:
        router = Router(self.unready())

        assert router.send("sql-lora") == Refused(Refusal.NO_READY_POD, model="sql-lora")

    def test_an_unknown_name_does_not_fall_back(self) -> None:
        router = Router(self.unready(), names=FALLS_BACK)

        assert router.send("new") == Refused(Refusal.UNKNOWN_MODEL, model="new")

    def test_an_adapter_whose_pods_are_all_ejected_falls_back(self) -> None:
        fleet = make_fleet(3, adapters=(), outliers=Outliers(HealthRules(), lambda: 100.0))
        with_adapter = state_of(fleet, 3)
        fleet.put_models(with_adapter, [ServedModel("base"), ServedModel("sql-lora", "base")])
        router, without = Router(fleet, names=FALLS_BACK), Router(fleet)
        assert router.routed("sql-lora").address == "10.0.0.3:8000"
        for _ in range(5):
            fleet.put_scrape_failure(with_adapter, 100.0, unreachable=True)

        assert fleet.serving("sql-lora").excluded
        assert router.routed("sql-lora").special is Special.FELL_BACK
        assert without.routed("sql-lora").address == "10.0.0.3:8000"

    def test_an_adapter_that_gets_no_pod_within_its_hold_falls_back(self) -> None:
        router = Router(make_fleet(1), HoldsAdapters(), names=FALLS_BACK)
        router.held("sql-lora")

        router.clock.advance(6)

        [(_, outcome)] = router.late
        assert not isinstance(outcome, Refused)
        assert (outcome.special, outcome.model) == (Special.FELL_BACK, "base")

    def test_a_router_that_holds_nothing_falls_back_at_once(self) -> None:
        router = Router(make_fleet(1), HoldsAdapters(), max_hold_seconds=0, names=FALLS_BACK)

        assert router.routed("sql-lora").special is Special.FELL_BACK

    def test_the_gateways_subset_holds_for_the_base_model_too(self) -> None:
        router = Router(self.unready(), names=FALLS_BACK)

        outcome = router.send("sql-lora", subset=frozenset({"10.0.0.2:8000"}))

        assert outcome == Refused(Refusal.NO_READY_POD, model="sql-lora")


class TestSglang:
    """SGLang takes ``base:adapter``. Other engines take the adapter's name."""

    def router(self, *engines: str | None) -> Router:
        fleet = Fleet()
        fleet.replace(
            make_pod(number, engine=engine) for number, engine in enumerate(engines, start=1)
        )
        for state in fleet:
            fleet.put_models(state, [ServedModel("base"), ServedModel("sql-lora", "base")])
        return Router(fleet)

    @pytest.mark.parametrize("asked", ["base:sql-lora", "base: sql-lora", "sql-lora", ":sql-lora"])
    @pytest.mark.parametrize(
        ("engines", "address", "sent"),
        [
            (("sglang",), "10.0.0.1:8000", "base:sql-lora"),
            (("vllm", "sglang"), "10.0.0.1:8000", "sql-lora"),
            ((None, "sglang"), "10.0.0.2:8000", "base:sql-lora"),
        ],
    )
    def test_a_pod_is_asked_in_its_own_way(
        self, asked: str, engines: tuple[str | None, ...], address: str, sent: str
    ) -> None:
        router = self.router(*engines)

        routed = router.routed(asked, subset=frozenset({address}))

        assert (routed.model, routed.reservation.adapter) == (sent, "sql-lora")

    @pytest.mark.parametrize("asked", ["other:sql-lora", "base:new", "base:", "a:b:c", ":" * 50])
    def test_what_names_no_adapter_is_unknown(self, asked: str) -> None:
        assert self.router("sglang").send(asked) == Refused(Refusal.UNKNOWN_MODEL, model=asked)

    def test_a_served_name_with_a_colon_is_that_model(self) -> None:
        router = self.router("sglang")
        router.fleet.put_models(state_of(router.fleet, 1), [ServedModel("s3://base")])

        assert router.routed("s3://base").model == "s3://base"

    def test_without_such_a_pod_the_form_is_unknown(self) -> None:
        assert isinstance(self.router("vllm", None).send("base:sql-lora"), Refused)

    def test_an_alias_may_lead_there(self) -> None:
        router = self.router("sglang")
        router.director.names.replace_rewrites([Rewrite("gpt", (Target("base:sql-lora"),))])

        assert router.routed("gpt").model == "base:sql-lora"

    def test_an_adapter_in_a_field_of_its_own_counts_for_a_base_model_only(self) -> None:
        names = self.router("sglang").director.names

        asked = [names.with_lora_path(model, "sql-lora") for model in ("base", "", "base:x", "new")]
        assert asked == ["base:sql-lora", ":sql-lora", "base:x", "new"]
