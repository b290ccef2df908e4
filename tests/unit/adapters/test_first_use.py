"""Requests for adapters that are declared and that no pod has loaded."""

from dataclasses import replace

import pytest

from lora_router.adapters.declared import WantedPods
from lora_router.adapters.first_use import MAX_NARROW, MAX_SELECTIONS
from lora_router.adapters.templated import FORGET_SECONDS, MAX_NEW
from lora_router.adapters.templates import Template
from lora_router.extproc.errors import refusal_answer
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import HeldShare, LedgerShare
from lora_router.routing.model_names import NamePolicy, Special
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.roll import Limits
from lora_router.routing.selection import EVERY_POD, Selection
from lora_router.routing.selector import parse_selector
from tests.fleet import make_fleet, make_metrics, make_pod, state_of
from tests.unit.adapters.declared_router import DeclaredRouter, declared
from tests.unit.adapters.loading_router import LoadingRouter

TENANTS = Template("base", ("tenant-*",), "s3://lora/{name}")


def refused(outcome: object) -> Refused:
    assert isinstance(outcome, Refused), outcome
    return outcome


def late_model(router: DeclaredRouter) -> str:
    """Return the model for which the pod is asked of the only request that was held."""
    [(_, outcome)] = router.late
    assert isinstance(outcome, Routed), outcome
    assert outcome.reservation.adapter == outcome.model
    return outcome.model


def with_full_pod(router: DeclaredRouter, adapter: str) -> Routed:
    """Let the first pod list an adapter; return the request of another one in its only slot."""
    router.fleet.put_metrics(state_of(router.fleet, 1), make_metrics(max_lora=1))
    router.lists(1, [adapter, "busy"])
    return router.routed("busy")


class TestWaiting:
    def test_a_request_waits_until_a_pod_lists_the_adapter(self) -> None:
        router = DeclaredRouter(declared("sql"))
        held = router.held("sql")
        assert (held.reason, held.seconds) == ("first-use", 30.0)
        assert router.wanted == ["sql"]
        assert router.first_use.waiting() == {"sql"}
        assert router.first_use.is_held("sql")

        router.clock.advance(20)
        router.lists(2, ["other"])
        assert not router.late
        router.lists(1, ["sql"])

        assert router.late_pod("sql").pod.name == "pod-1"
        assert router.first_use.waiting() == frozenset()
        assert router.routed("sql").reservation.adapter == "sql"

    def test_it_waits_longer_than_algorithms_may_hold_and_then_is_refused(self) -> None:
        router = DeclaredRouter(declared("sql"), max_hold_seconds=0.0)
        router.held("sql")
        router.clock.advance(29.9)
        assert not router.late
        router.clock.advance(0.2)
        [(_, outcome)] = router.late
        assert refused(outcome) == Refused(
            Refusal.ADAPTER_NOT_LOADED, model="sql", detail="no pod had loaded it in time"
        )
        assert router.director.held == 0

    def test_a_load_that_fails_refuses_those_that_wait_and_those_that_come(self) -> None:
        router = DeclaredRouter(declared("sql"), declared("chat"))
        for name in ("one", "two"):
            router.held("sql", name)
        router.held("chat")

        router.first_use.failed("sql", "pods do not find it", 8.0)

        assert [name for name, _ in router.late] == ["one", "two"]
        outcome = refused(router.send("sql"))
        assert (outcome.refusal, outcome.wait) == (Refusal.ADAPTER_NOT_LOADED, 8.0)
        answer = refusal_answer(outcome)
        assert (answer.status, answer.code) == (503, "adapter_not_loaded")
        assert "'sql' is not loaded: pods do not find it. Retry later." in answer.message
        assert ("retry-after", b"8") in answer.headers
        assert b"s3:" not in answer.body

        router.clock.advance(8.1)
        router.held("sql")
        router.first_use.failed("sql", "pods do not find it", 8.0)
        router.first_use.loaded("sql")
        router.held("sql")

    def test_a_changed_declaration_is_tried_at_once(self) -> None:
        router = DeclaredRouter(declared("sql", "s3://lora/wrong"))
        router.first_use.failed("sql", "pods do not find it", 300.0)
        assert isinstance(router.send("sql"), Refused)
        router.declare(declared("sql", "s3://lora/right"))
        router.held("sql")

    def test_the_limits_of_the_waiting_room_apply(self) -> None:
        router = DeclaredRouter(declared("sql"), limits=Limits(2, 1))
        router.held("sql")
        assert refused(router.send("sql")).refusal is Refusal.TOO_MANY_HELD

    def test_a_client_that_leaves_is_forgotten(self) -> None:
        router = DeclaredRouter(declared("sql"))
        router.held("sql").cancel()
        assert router.director.held == 0
        assert router.first_use.waiting() == frozenset()

    def test_without_waiting_the_adapter_is_loaded_all_the_same(self) -> None:
        router = DeclaredRouter(declared("sql"), first_use_seconds=0.0)
        assert refused(router.send("sql")).refusal is Refusal.ADAPTER_NOT_LOADED
        assert router.wanted == ["sql"]

    def test_while_the_router_drains_it_is_refused_for_that(self) -> None:
        router = DeclaredRouter(declared("sql"))
        router.held("sql")
        router.director.drain(0.0)
        assert refused(router.late[0][1]).refusal is Refusal.SHUTTING_DOWN

    def test_the_base_model_may_answer_instead(self) -> None:
        router = DeclaredRouter(declared("sql"), names=NamePolicy(falls_back=True))
        router.held("sql")
        router.first_use.failed("sql", "pods do not find it", 8.0)
        [(_, outcome)] = router.late
        assert isinstance(outcome, Routed)
        assert outcome.special is Special.FELL_BACK
        routed = router.routed("sql")
        assert (routed.model, routed.special) == ("base", Special.FELL_BACK)


class TestInVain:
    def test_no_pod_serves_the_base_model(self) -> None:
        router = DeclaredRouter(declared("sql"))
        router.declare(declared("sql"), declared("x", pods=WantedPods()))
        router.fleet.replace([])
        outcome = refused(router.send("sql"))
        assert (outcome.refusal, outcome.detail) == (
            Refusal.ADAPTER_NOT_LOADED,
            "no ready pod serves its base model",
        )
        assert not router.wanted

    def test_the_lists_of_pods_are_not_known_yet(self) -> None:
        fleet = Fleet()
        fleet.replace([make_pod(1)])
        router = DeclaredRouter(declared("sql"), fleet=fleet)
        assert refused(router.send("sql")).refusal is Refusal.MODELS_UNKNOWN

    @pytest.mark.parametrize(
        ("query", "refusal"),
        [
            ({"pod_filter": "gpu=none"}, Refusal.NONE_SELECTED),
            ({"pod_filter": "gpu in"}, Refusal.BAD_SELECTOR),
            ({"subset": frozenset({"10.9.9.9:1"})}, Refusal.NONE_SELECTED),
            ({"pod_filter": "gpu=b"}, Refusal.ADAPTER_NOT_LOADED),
        ],
    )
    def test_the_request_may_go_to_none_of_the_pods(
        self, query: dict[str, object], refusal: Refusal
    ) -> None:
        fleet = Fleet()
        fleet.replace(
            make_pod(number, labels={"gpu": gpu}, models=("base",))
            for number, gpu in ((1, "a"), (2, "b"))
        )
        on_a = declared("sql", pods=WantedPods(selector=parse_selector("gpu=a")))
        router = DeclaredRouter(on_a, fleet=fleet)
        assert refused(router.send("sql", "", **query)).refusal is refusal
        router.held("sql", pod_filter="gpu=a")

    def test_a_name_that_nobody_declares_is_unknown(self) -> None:
        router = DeclaredRouter(declared("sql"))
        assert refused(router.send("chat")).refusal is Refusal.UNKNOWN_MODEL


class TestFilters:
    def test_the_loader_knows_where_requests_that_wait_may_go(self) -> None:
        router = DeclaredRouter(declared("sql"), pods=3)
        pods = [state_of(router.fleet, number) for number in (1, 2, 3)]

        def allowed() -> list[list[bool]]:
            first_use = router.first_use
            return [
                [first_use.selects(each, pod) for pod in pods]
                for each in first_use.selections("sql")
            ]

        assert allowed() == [[True, True, True]]
        router.held("sql", subset=frozenset({"10.0.0.2:8000", "10.0.0.3"}))
        assert allowed() == [[False, True, True]]
        router.held("sql")
        assert allowed() == [[False, True, True], [True, True, True]]

    def test_requests_of_other_routers_may_go_anywhere_as_far_as_is_known(self) -> None:
        router = DeclaredRouter(declared("sql"), pods=1)
        router.held("sql", subset=frozenset({"10.0.0.1"}))
        share = LedgerShare("peer", 1, 0.25, {}, {"sql": HeldShare(1.0)}, {})
        router.fleet.put_peer(share, router.clock.now())
        assert EVERY_POD in router.first_use.selections("sql")

    def test_how_many_filters_have_a_say_is_bounded(self) -> None:
        router = DeclaredRouter(declared("sql"), pods=1)
        for number in range(MAX_SELECTIONS + 4):
            router.held("sql", pod_filter=f"x!={number}")
        assert len(router.first_use.selections("sql")) == MAX_SELECTIONS

    def test_a_filter_for_which_it_cannot_be_loaded_refuses_only_its_own_requests(self) -> None:
        router = DeclaredRouter(declared("sql"), pods=2)
        router.held("sql", "narrow", pod_filter="x!=1")
        router.held("sql", "plain")
        in_vain = (Selection("x!=1", None),)
        router.first_use.failed_for("sql", in_vain, "none of the pods can", 60.0)

        [(name, outcome)] = router.late
        assert name == "narrow"
        assert refused(outcome).detail == "none of the pods can"
        assert refused(router.send("sql", pod_filter="x!=1")).wait == 60.0
        router.held("sql", pod_filter="x!=2")
        router.first_use.loaded("sql")
        router.held("sql", pod_filter="x!=1")

    def test_how_many_filters_are_remembered_for_that_is_bounded(self) -> None:
        router = DeclaredRouter(declared("sql"), pods=1)
        for number in range(MAX_NARROW + 10):
            in_vain = (Selection(f"x!={number}", None),)
            router.first_use.failed_for("sql", in_vain, "in vain", 60.0)
        assert len(router.first_use._narrow) == MAX_NARROW
        router.held("sql", pod_filter="x!=0")
        assert refused(router.send("sql", pod_filter=f"x!={MAX_NARROW}")).wait == 60.0

    @pytest.mark.parametrize("why", ["failing", "full"])
    def test_a_request_that_excludes_the_pods_that_can_load_it_fails_alone(self, why: str) -> None:
        by_hand = ["x", "y"] if why == "full" else []
        router = LoadingRouter(pods=2, memory=2)
        in_zone = state_of(router.fleet, 1)
        router.fleet.upsert(replace(in_zone.pod, labels={"zone": "b"}))
        router.pods.listed[in_zone] = dict.fromkeys(by_hand, "")
        router.pods.show(in_zone)
        router.pods.answer = lambda call: "cannot-load" if call.state is in_zone else "done"
        router.pods.seconds = 3.0
        router.declare(declared("sql"))

        router.held("sql", "narrow", pod_filter="zone=b")
        router.held("sql", "first")
        router.clock.advance(0.3)
        router.send("sql", "second")
        router.clock.advance(6.5)

        late = dict(router.late)
        detail = "none of the pods that the request may go to can load it"
        assert refused(late.pop("narrow")).detail == detail
        assert late.keys() == {"first", "second"}
        assert all(isinstance(each, Routed) for each in late.values())

    def test_an_adapter_is_loaded_where_all_may_go_that_wait(self) -> None:
        router = LoadingRouter(pods=3, memory=2)
        second = state_of(router.fleet, 2)
        router.declare(declared("sql"))
        router.held("sql", "plain")
        router.held("sql", "narrow", subset=frozenset({second.pod.address}))
        router.clock.advance(1.0)
        assert {name for name, each in router.late if isinstance(each, Routed)} == {
            "plain",
            "narrow",
        }

    def test_a_request_that_may_go_elsewhere_does_not_wait_for_the_next_plan(self) -> None:
        router = LoadingRouter(pods=2, memory=2)
        first = state_of(router.fleet, 1)
        router.pods.listed[first] = dict.fromkeys(("x", "y"), "")
        router.pods.show(first)
        router.loader._rests_until = float("inf")  # No plan is made.
        router.templated.replace([TENANTS])
        router.held("tenant-1", "narrow", subset=frozenset({first.pod.address}))
        router.clock.advance(0.1)
        assert [name for name, _ in router.late] == ["narrow"]
        router.held("tenant-1", "plain")
        router.clock.advance(1.0)
        assert router.loaded(2) == ["tenant-1"]


class TestTemplates:
    def test_a_name_that_matches_is_declared_when_it_is_asked_for(self) -> None:
        router = DeclaredRouter()
        router.templated.replace([TENANTS])
        router.held("tenant-7")
        assert [adapter.source for adapter in router.declarations] == ["s3://lora/tenant-7"]
        assert router.wanted == ["tenant-7"]
        assert refused(router.send("other")).refusal is Refusal.UNKNOWN_MODEL
        router.lists(1, ["tenant-7"])
        assert router.late_names == ["tenant-7"]

    def test_how_many_new_names_wait_is_bounded(self) -> None:
        limits = Limits(2 * MAX_NEW, 2 * MAX_NEW)
        router = DeclaredRouter(limits=limits)
        router.templated.replace([TENANTS])
        for number in range(MAX_NEW):
            router.held(f"tenant-{number}")
        assert refused(router.send("tenant-new")).refusal is Refusal.TOO_MANY_HELD
        router.held("tenant-0", "again")
        router.lists(1, ["tenant-0"])
        router.held("tenant-new")

    def test_a_name_that_is_not_asked_for_any_more_and_not_loaded_is_forgotten(self) -> None:
        router = DeclaredRouter()
        router.templated.replace([TENANTS])
        router.held("tenant-1")
        router.held("tenant-2")
        router.lists(1, ["tenant-1"])
        router.clock.advance(FORGET_SECONDS + 5)
        assert [adapter.name for adapter in router.declarations] == ["tenant-1"]
        router.lists(1, [])
        router.clock.advance(FORGET_SECONDS + 5)
        assert not router.templated
        assert not router.declarations

    def test_names_that_pods_list_after_a_restart_are_declared(self) -> None:
        fleet = make_fleet(1, adapters=[*(f"tenant-{each}" for each in range(200)), "by-hand"])
        router = DeclaredRouter(declared("sql"), fleet=fleet)
        router.templated.replace([TENANTS])
        router.clock.advance(1)
        assert len(router.declarations) == 201
        assert router.declarations.get("by-hand") is None

    def test_other_templates_withdraw_and_change_what_the_old_ones_declared(self) -> None:
        router = DeclaredRouter()
        router.templated.replace([TENANTS, Template("base", ("a-*",), "s3://lora/{name}")])
        router.held("tenant-1")
        router.held("a-1")
        router.templated.replace([Template("base", ("tenant-*",), "s3://lora/new/{name}")])
        assert [adapter.source for adapter in router.declarations] == ["s3://lora/new/tenant-1"]

    def test_a_declared_adapter_comes_before_a_template(self) -> None:
        router = DeclaredRouter(declared("tenant-1", "s3://lora/special"))
        router.templated.replace([TENANTS])
        router.held("tenant-1")
        assert [adapter.source for adapter in router.declarations] == ["s3://lora/special"]


class TestOtherRouters:
    def test_what_requests_wait_for_in_other_routers_is_wanted_here(self) -> None:
        router = DeclaredRouter(declared("sql"), declared("chat"))
        router.templated.replace([TENANTS])
        router.first_use.start()
        router.lists(1, ["chat"])
        held = {name: HeldShare(1.0) for name in ("sql", "chat", "tenant-1", "unknown")}
        router.fleet.put_peer(LedgerShare("peer", 1, 0.25, {}, held, {}), router.clock.now())

        router.clock.advance(0.3)

        assert sorted(set(router.wanted)) == ["sql", "tenant-1"]
        assert router.first_use.waiting() == {"sql", "tenant-1"}
        assert router.first_use.is_held("tenant-1")
        assert router.declarations.get("tenant-1") is not None
        router.first_use.stop()
        router.wanted.clear()
        router.clock.advance(1)
        assert not router.wanted

    def test_what_has_waited_longest_in_other_routers_is_wanted_first(self) -> None:
        router = DeclaredRouter(*(declared(name) for name in "abcd"))
        router.first_use.start()
        for number, waits in enumerate(({"a": 1.0, "b": 4.0}, {"c": 2.0, "d": 3.0})):
            held = {name: HeldShare(seconds) for name, seconds in waits.items()}
            share = LedgerShare(f"peer-{number}", 1, 0.25, {}, held, {})
            router.fleet.put_peer(share, router.clock.now())
        router.clock.advance(0.3)
        assert router.wanted[:4] == ["b", "d", "c", "a"]

    def test_held_requests_are_told_to_other_routers(self) -> None:
        router = DeclaredRouter(declared("sql"))
        router.held("sql")
        router.clock.advance(2)
        assert router.director.held_adapters() == {"sql": HeldShare(2.0)}


class TestExplained:
    def test_a_dry_run_says_what_would_happen(self) -> None:
        router = DeclaredRouter(declared("sql"))
        explain = router.director.explainer.explain
        found = explain(RouteQuery("sql"))
        assert (found.answer, found.reason) == ("hold", "first-use")
        assert not router.wanted
        router.first_use.failed("sql", "pods do not find it", 8.0)
        found = explain(RouteQuery("sql"))
        assert (found.answer, found.reason) == ("refuse", "adapter-not-loaded")
        assert found.detail == "pods do not find it"


class TestLists:
    def test_clients_see_the_adapters_that_may_be_loaded(self) -> None:
        router = DeclaredRouter(declared("sql", version="2", aliases=("gpt",)), declared("chat"))
        names = router.director.names
        catalogs = router.fleet.catalogs()
        found = {name for each in names.with_aliases(catalogs) for name in each.adapters}
        assert found == {"sql", "gpt", "chat"}
        assert names.with_aliases(catalogs) == names.with_aliases(catalogs)
        assert [names.loadable(name) is not None for name in ("gpt", "chat", "x")] == [
            True,
            True,
            False,
        ]
        router.declare(declared("chat"))
        found = {name for each in names.with_aliases(catalogs) for name in each.adapters}
        assert found == {"chat"}


class TestDeclarationsThatChange:
    """Requests wait for an adapter as it was declared, and the declaration changes."""

    def test_those_that_wait_for_a_load_get_the_new_version(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.held("sql")
        router.clock.advance(10)

        router.declare(declared("sql", version="2"))

        assert router.wanted == ["sql@1", "sql@2"]
        assert router.first_use.waiting() == {"sql@2"}
        router.lists(1, ["sql@2"])
        assert late_model(router) == "sql@2"

    def test_the_pods_that_list_nothing_change_meanwhile(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.held("sql")
        router.held("sql", "second")
        router.declare(declared("sql", version="2"))
        router.lists(1, ["other"])
        router.declare(declared("sql", version="3"))
        router.lists(2, ["other"])
        assert not router.late
        router.lists(2, ["sql@3"])
        assert router.late_names == ["sql", "second"]

    def test_they_wait_no_longer_than_before(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.held("sql")
        router.clock.advance(20)
        router.declare(declared("sql", version="2"))
        router.clock.advance(9.9)
        assert not router.late
        router.clock.advance(0.2)
        [(_, outcome)] = router.late
        assert refused(outcome) == Refused(
            Refusal.ADAPTER_NOT_LOADED, model="sql", detail="no pod had loaded it in time"
        )
        assert router.director.held == 0

    def test_they_go_to_a_pod_that_has_the_new_version_already(self) -> None:
        router = DeclaredRouter(declared("sql", "s3://lora/missing"))
        router.held("sql")
        router.lists(2, ["sql-2"])
        router.declare(declared("sql-2", aliases=("sql",)))
        # The name belongs to another adapter now: no version of the one that was asked for.
        [(_, outcome)] = router.late
        assert refused(outcome).refusal is Refusal.UNKNOWN_MODEL

    def test_those_for_an_adapter_that_is_removed_are_told_at_once(self) -> None:
        router = DeclaredRouter(declared("sql"), declared("chat"))
        router.held("sql")
        router.held("chat")
        router.declare(declared("chat"))
        [(_, outcome)] = router.late
        assert refused(outcome).refusal is Refusal.UNKNOWN_MODEL
        assert router.director.held == 1

    def test_a_declaration_of_the_same_version_changes_nothing(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.held("sql")
        router.declare(declared("sql", version="1", pods=WantedPods(copies=1)))
        assert not router.late
        assert router.first_use.waiting() == {"sql@1"}

    def test_those_that_wait_for_a_slot_of_the_old_version_keep_it(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), pods=1)
        busy = with_full_pod(router, "sql@1")
        assert router.held("sql").reason != "first-use"
        router.declare(declared("sql", version="2"))
        assert not router.late
        assert router.first_use.is_held("sql@1")
        busy.reservation.release()
        assert late_model(router) == "sql@1"

    def test_they_follow_when_the_pods_with_the_old_version_are_gone(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), max_hold_seconds=20.0)
        with_full_pod(router, "sql@1")
        router.held("sql")
        router.declare(declared("sql", version="2"))
        router.lists(2, ["sql@2"])
        assert not router.late
        router.fleet.remove("pod-1")
        router.clock.advance(20.1)
        assert late_model(router) == "sql@2"

    def test_all_of_them_follow_at_once_when_their_version_is_gone(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), max_hold_seconds=40.0)
        with_full_pod(router, "sql@1")
        names = [f"request-{number}" for number in range(6)]
        for name in names:
            router.held("sql", name)
        router.declare(declared("sql", version="2"))
        router.lists(1, ["busy"])
        router.clock.advance(1.0)
        assert router.first_use.waiting() == {"sql@2"}

        router.lists(2, ["sql@2"])
        router.clock.advance(0.1)
        assert router.late_names == names

    def test_they_follow_while_the_router_drains(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.held("sql")
        router.director.drain(5.0)
        router.declare(declared("sql", version="2"))
        router.clock.advance(2.0)
        assert not router.late
        router.lists(1, ["sql@2"])
        assert late_model(router) == "sql@2"

    def test_none_is_refused_early_if_declarations_follow_each_other(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), max_hold_seconds=40.0)
        with_full_pod(router, "sql@1")
        for number in range(100):
            router.held("sql", f"request-{number}")
        router.declare(declared("sql", version="2"))
        router.lists(1, ["busy"])
        router.declare(declared("sql", version="3"))
        router.clock.advance(0.5)
        assert not router.late
        router.lists(2, ["sql@3"])
        router.clock.advance(1.0)
        assert len(router.late_names) == 100

    def test_one_that_follows_is_served_before_those_that_came_later(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), max_hold_seconds=40.0)
        for number in (1, 2):
            router.fleet.put_metrics(state_of(router.fleet, number), make_metrics(max_lora=1))
        router.lists(1, ["sql@1", "busy"])
        router.lists(2, ["other"])
        router.routed("busy")
        other = router.routed("other")
        router.held("sql", "older")
        router.declare(declared("sql", version="2"))
        router.lists(2, ["sql@2", "other"])
        router.held("sql", "newer")
        router.lists(1, ["busy"])
        router.clock.advance(0.1)

        other.reservation.release()
        assert router.late_names == ["older", "newer"]
