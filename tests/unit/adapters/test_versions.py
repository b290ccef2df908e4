"""New versions of declared adapters, and how requests move to them."""

from collections.abc import Collection, Mapping, Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.adapters.declarations import Declarations, derived_version
from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.adapters.versions import PATIENCE_SECONDS, QUIET_SECONDS, Versions
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.peer_ledgers import LedgerShare, PodShare
from lora_router.routing.model_names import NamePolicy
from lora_router.routing.model_rewrites import Rewrite, Target
from lora_router.routing.outcome import Routed, RouteQuery
from lora_router.routing.refusal import Refusal, Refused
from tests.fleet import state_of
from tests.unit.adapters.declared_router import DeclaredRouter, declared

V2 = f"sql@{derived_version('s3://lora/2')}"


def entries(versions: Versions) -> int:
    """Return how much is remembered: the entries of all mappings and sets, also nested ones."""

    def count(value: object) -> int:
        if isinstance(value, Mapping):
            return len(value) + sum(map(count, value.values()))
        return len(value) if isinstance(value, Set) else 0

    return sum(map(count, vars(versions).values()))


class TestNames:
    def test_a_name_and_its_aliases_stand_for_the_declared_version(self) -> None:
        router = DeclaredRouter(declared("sql", version="2", aliases=("gpt",)))
        assert router.shares("sql") == router.shares("gpt") == {"sql@2"}
        router.held("gpt")
        assert router.wanted == ["sql@2"]
        router.lists(1, ["sql@2"])
        assert router.late_names == ["gpt"]
        assert router.director.names.may_change

    def test_an_adapter_without_version_and_aliases_is_not_rewritten(self) -> None:
        router = DeclaredRouter(declared("sql"))
        assert not router.director.names.rewrites.active

    def test_rewrites_of_the_settings_come_first_and_may_lead_to_declared_adapters(self) -> None:
        names = NamePolicy((Rewrite("gpt", (Target("sql"),)), Rewrite("chat", (Target("base"),))))
        router = DeclaredRouter(
            declared("sql", version="2"), declared("chat", version="1"), names=names
        )
        assert router.shares("gpt") == {"sql@2"}
        assert router.shares("chat") == {"base"}
        router.lists(1, ["sql@2"])
        assert router.routed("gpt").model == "sql@2"
        assert router.routed("chat").model == "base"

    def test_aliases_may_move_and_go(self) -> None:
        router = DeclaredRouter(declared("a", aliases=("x", "y")), declared("b"))
        router.declare(declared("a", aliases=("y",)), declared("b", aliases=("x",)))
        assert router.shares("x") == {"b"}
        assert router.shares("y") == {"a"}
        router.declare(declared("a"))
        assert router.shares("x") == {"x"}
        assert not router.director.names.rewrites.active

    def test_a_name_that_was_an_alias_may_become_an_adapter(self) -> None:
        router = DeclaredRouter(declared("sql", version="1", aliases=("reports",)))
        router.lists(1, ["sql@1", "reports"])
        router.declare(declared("sql", version="1"), declared("reports"))
        assert router.shares("reports") == {"reports"}
        assert router.routed("reports").model == "reports"
        router.declare(declared("sql", version="2"), declared("reports"))
        assert router.shares("reports") == {"reports"}

    @pytest.mark.parametrize("version", ["", "1"])
    def test_a_renamed_adapter_may_keep_its_old_name_as_an_alias(self, version: str) -> None:
        router = DeclaredRouter(declared("sql", version=version))
        router.lists(1, ["sql", "sql@1", "sql-2"])
        router.declare(declared("sql-2", aliases=("sql",)))
        assert router.shares("sql") == {"sql-2"}
        assert router.routed("sql").model == "sql-2"

    def test_an_alias_that_two_want_goes_to_the_second_when_the_first_gives_it_up(self) -> None:
        router = DeclaredRouter(declared("a", aliases=("x",)), declared("b", aliases=("x",)))
        assert router.shares("x") == {"a"}
        router.declare(declared("b", aliases=("x",)))
        assert router.shares("x") == {"b"}
        router.declare(declared("a", aliases=("x",)), declared("b", aliases=("x",)))
        assert router.shares("x") == {"a"}
        router.declare(declared("a"), declared("b", aliases=("x",)))
        assert router.shares("x") == {"b"}

    def test_an_alias_that_becomes_a_base_model_is_no_alias_until_it_is_none_again(self) -> None:
        router = DeclaredRouter(declared("sql", aliases=("gpt",)))
        for number in (1, 2):
            router.lists(number, ["sql"])
        router.fleet.put_models(state_of(router.fleet, 2), [ServedModel("gpt")])
        assert router.shares("gpt") == {"gpt"}
        router.lists(2, [])
        assert router.shares("gpt") == {"sql"}

    @pytest.mark.slow
    @given(st.data())
    def test_names_stand_for_the_same_whatever_was_declared_and_listed_before(
        self, data: st.DataObject
    ) -> None:
        names = ("n0", "n1", "n2", "base", "m0")
        known = (*names, "x")

        def listing(router: DeclaredRouter, base: str) -> None:
            adapters = [each.served_name for each in router.declarations]
            models = [ServedModel(base), *(ServedModel(each, base) for each in adapters)]
            for number in (1, 2):
                router.fleet.put_models(state_of(router.fleet, number), models)

        def wanted(name: str) -> DeclaredAdapter:
            aliases = data.draw(st.lists(st.sampled_from(known), max_size=2, unique=True))
            aliases = [each for each in aliases if each != name]
            version = data.draw(st.sampled_from(("", "v1", "v2")))
            return declared(name, version=version, aliases=tuple(aliases))

        router, now, base = DeclaredRouter(), dict[str, DeclaredAdapter](), "base"
        for _ in range(data.draw(st.integers(1, 10))):
            if data.draw(st.integers(0, 4)):
                chosen = data.draw(st.lists(st.sampled_from(names), unique=True))
                keeps = data.draw(st.sets(st.sampled_from(names)))
                now = {
                    name: now[name] if name in keeps & now.keys() else wanted(name)
                    for name in chosen
                }
                router.declare(*now.values())
            else:
                base = data.draw(st.sampled_from(("base", "n0", "m0", "x")))
            router.clock.advance(data.draw(st.sampled_from((0.0, 0.1, 40.0))))
            if data.draw(st.booleans()):
                listing(router, base)
        listing(router, base)
        router.clock.advance(100.0)
        fresh = DeclaredRouter()
        listing(fresh, base)
        fresh.declare(*now.values())
        listing(fresh, base)
        fresh.clock.advance(100.0)
        assert {name: router.shares(name) for name in known} == {
            name: fresh.shares(name) for name in known
        }

    def test_base_models_that_pods_serve_keep_their_names(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        router = DeclaredRouter(
            declared("sql", aliases=("base", "gpt"), origin="model-adapter ml/sql"),
            declared("other", version="2"),
        )
        assert router.shares("base") == {"base"}
        assert router.routed("base").model == "base"
        assert router.shares("gpt") == {"sql"}
        router.fleet.put_models(state_of(router.fleet, 1), [ServedModel("other")])
        assert router.shares("other") == {"other"}
        router.lists(1, ["sql"])
        assert router.shares("other") == {"other@2"}
        assert [each.getMessage() for each in caplog.records] == [
            "adapter sql, declared by model-adapter ml/sql: its alias base is a base model that "
            "pods serve, so requests for it get the base model; give the adapter another name",
            "adapter other, declared by file: its name is a base model that pods serve, so "
            "requests for it get the base model; give the adapter another name",
        ]

    def test_names_that_are_declared_no_longer_stand_for_themselves(self) -> None:
        router = DeclaredRouter(declared("sql", version="2", aliases=("gpt",)))
        router.declare()
        assert router.shares("sql") == {"sql"}
        assert not router.director.names.rewrites.active
        assert router.versions.declared_as("sql@2") is None

    def test_many_adapters_are_looked_at_in_turns(self) -> None:
        router = DeclaredRouter(*(declared(f"a-{each}", version="1") for each in range(500)))
        assert len(router.versions.targets()) < 100
        router.clock.advance(0.1)
        assert len(router.versions.targets()) == 500


class TestMoves:
    @pytest.mark.slow
    @given(st.data())
    def test_requests_get_a_version_that_pods_list_whenever_the_router_was_started(
        self, data: st.DataObject
    ) -> None:
        """Pods load the new version and unload the old one in any order, seen at any time."""
        versions = ("sql", "sql@1", "sql@2")
        seconds = data.draw(st.sampled_from((0.0, 60.0)))
        router = DeclaredRouter(declared("sql", version="2"), pods=3, move_seconds=seconds)
        lists: dict[int, set[str]] = {number: set() for number in (1, 2, 3)}
        for _ in range(data.draw(st.integers(1, 15))):
            if data.draw(st.booleans()):
                number = data.draw(st.sampled_from((1, 2, 3)))
                lists[number] ^= {data.draw(st.sampled_from(versions))}
                router.lists(number, sorted(lists[number]))
            else:
                router.clock.advance(data.draw(st.sampled_from((0.1, 5.0, 29.0, 31.0))))
            listed = set().union(*lists.values())
            assert router.shares("sql") <= listed or (not listed and router.shares("sql"))

    def test_requests_move_once_as_many_pods_serve_the_new_version_as_the_old_one(self) -> None:
        router = DeclaredRouter(declared("sql", "s3://lora/1"), pods=3)
        for number in (1, 2):
            router.lists(number, ["sql"])
        assert router.shares("sql") == {"sql"}

        router.declare(declared("sql", "s3://lora/2"))
        assert router.shares("sql") == {"sql"}
        assert [adapter.served_name for adapter in router.declarations] == [V2]
        router.lists(1, ["sql", V2])
        assert router.shares("sql") == {"sql"}
        assert router.routed("sql").model == "sql"
        router.lists(3, [V2])
        assert router.shares("sql") == {V2}
        assert router.routed("sql").model == V2

    def test_a_declared_number_of_copies_is_enough(self) -> None:
        wanted = WantedPods(copies=1)
        router = DeclaredRouter(declared("sql", version="1", pods=wanted), pods=3)
        for number in (1, 2, 3):
            router.lists(number, ["sql@1"])
        router.declare(declared("sql", version="2", pods=wanted))
        router.lists(1, ["sql@1", "sql@2"])
        assert router.shares("sql") == {"sql@2"}

    def test_where_host_memory_holds_no_more_fewer_are_enough_in_the_end(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), pods=3)
        for number in (1, 2, 3):
            router.lists(number, ["sql@1"])
        router.declare(declared("sql", version="2"))
        router.lists(1, ["sql@2"])
        router.clock.advance(PATIENCE_SECONDS - 1)
        assert router.shares("sql") == {"sql@1"}
        router.clock.advance(2)
        assert router.shares("sql") == {"sql@2"}

    def test_a_share_goes_to_the_new_version_and_users_keep_theirs(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2", share=10))
        router.lists(2, ["sql@2"])
        served = router.served("sql", 1000)
        assert served.keys() == {"sql@1", "sql@2"}
        assert 50 < served["sql@2"] < 200
        router.clock.advance(600)
        assert router.served("sql", 1000) == served
        assert not router.versions.may_leave("sql@1")

        router.declare(declared("sql", version="2"))
        assert router.shares("sql") == {"sql@2"}

    def test_a_share_that_is_taken_back_ends_at_once(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), pods=3, move_seconds=100)
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2", share=10))
        for number in (2, 3):
            router.lists(number, ["sql@2"])
        router.clock.advance(200)
        assert router.shares("sql") == {"sql@1", "sql@2"}
        router.declare(declared("sql", version="1"))
        assert router.shares("sql") == {"sql@1"}

    def test_a_version_that_was_rolled_back_may_come_again_as_a_canary(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        for number in (1, 2):
            router.lists(number, ["sql@1"])
        router.declare(declared("sql", version="2"))
        for number in (1, 2):
            router.lists(number, ["sql@1", "sql@2"])
        router.clock.advance(60)
        assert router.shares("sql") == {"sql@2"}
        router.declare(declared("sql", version="1"))
        router.clock.advance(3)
        assert router.shares("sql") == {"sql@1"}

        router.declare(declared("sql", version="2", share=10))
        router.clock.advance(60)

        assert 50 < router.served("sql", 1000)["sql@2"] < 150
        assert not router.versions.may_leave("sql@1")

    def test_a_version_that_was_rolled_back_moves_little_by_little_again(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), move_seconds=100)
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2"))
        router.lists(1, ["sql@1", "sql@2"])
        router.clock.advance(200)
        router.declare(declared("sql", version="1"))
        router.clock.advance(200)
        assert router.shares("sql") == {"sql@1"}

        router.declare(declared("sql", version="2"))
        router.clock.advance(50)

        assert 400 < router.served("sql", 1000)["sql@2"] < 600

    @pytest.mark.parametrize("versions", [("v1", "v2", "v3"), ("v3", "v2", "v1")])
    def test_a_canary_in_place_of_another_one_leaves_the_rest_to_the_version_before_both(
        self, versions: tuple[str, str, str]
    ) -> None:
        first, second, third = versions
        router = DeclaredRouter(declared("sql", version=first))
        router.lists(1, [f"sql@{first}"])
        router.declare(declared("sql", version=second, share=10))
        router.lists(1, [f"sql@{first}", f"sql@{second}"])
        router.lists(2, [f"sql@{second}"])
        assert router.shares("sql") == {f"sql@{first}", f"sql@{second}"}

        router.declare(declared("sql", version=third, share=10))
        assert router.shares("sql") == {f"sql@{first}"}
        router.lists(1, [f"sql@{each}" for each in versions])
        served = router.served("sql", 1000)
        assert served.keys() == {f"sql@{first}", f"sql@{third}"}
        assert 50 < served[f"sql@{third}"] < 150
        router.clock.advance(60)
        assert router.served("sql", 1000) == served

    def test_a_canary_that_was_given_up_serves_nothing_when_the_version_before_it_is_away(
        self,
    ) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2", share=10))
        router.lists(2, ["sql@2"])
        router.declare(declared("sql", version="3", share=10))
        router.lists(2, ["sql@2", "sql@3"])
        assert router.shares("sql") == {"sql@1", "sql@3"}
        router.clock.advance(60)
        router.lists(1, [])
        assert router.shares("sql") == {"sql@3"}
        router.lists(1, ["sql@1"])
        assert router.shares("sql") == {"sql@1", "sql@3"}

    def test_a_version_that_takes_the_place_of_a_canary_gets_what_the_main_one_had(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), move_seconds=100)
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2", share=10))
        router.lists(2, ["sql@2"])
        router.clock.advance(200)
        router.declare(declared("sql", version="3"))
        assert router.shares("sql") == {"sql@1"}

    def test_requests_move_little_by_little(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"), move_seconds=100)
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2"))
        router.lists(2, ["sql@2"])
        shares = []
        for _ in range(5):
            shares.append(router.served("sql", 1000).get("sql@2", 0))
            router.clock.advance(25)
        assert shares[0] == 0
        assert shares == sorted(shares)
        assert 400 < shares[2] < 600
        assert router.shares("sql") == {"sql@2"}

    def test_a_router_that_starts_during_a_move_begins_it_anew(self) -> None:
        router = DeclaredRouter(declared("sql", version="2"), pods=3, move_seconds=100)
        # The pod that has only the new version is read first.
        router.lists(3, ["sql@2"])
        router.clock.advance(1.0)
        router.lists(1, ["sql@1", "sql@2"])
        router.lists(2, ["sql@1"])
        assert router.served("sql", 100) == {"sql@1": 100}
        router.clock.advance(50)
        assert 400 < router.served("sql", 1000)["sql@2"] < 600

    def test_a_router_that_starts_during_a_canary_keeps_its_share(self) -> None:
        router = DeclaredRouter(declared("sql", version="2", share=10), pods=2)
        router.lists(2, ["sql@2"])
        router.lists(1, ["sql@1"])
        assert 50 < router.served("sql", 1000)["sql@2"] < 150

    def test_a_pod_that_comes_back_with_an_old_version_moves_nothing_back(self) -> None:
        router = DeclaredRouter(declared("sql", version="2"), move_seconds=100)
        router.lists(1, ["sql@2"])
        router.clock.advance(60)
        router.lists(2, ["sql@1"])
        assert router.shares("sql") == {"sql@2"}

    def test_if_the_new_version_is_gone_the_old_one_serves_again(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2"))
        router.lists(2, ["sql@2"])
        assert router.shares("sql") == {"sql@2"}
        router.lists(2, [])
        assert router.shares("sql") == {"sql@1"}
        assert not router.versions.may_leave("sql@1")
        router.lists(1, [])
        assert router.shares("sql") == {"sql@2"}
        router.held("sql")

    def test_a_third_version_takes_over_from_the_one_that_serves(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2"))
        router.lists(2, ["sql@2"])
        router.declare(declared("sql", version="3"))
        assert router.shares("sql") == {"sql@2"}
        router.lists(1, ["sql@1", "sql@3"])
        assert router.shares("sql") == {"sql@3"}

    def test_a_source_that_returns_is_the_plain_name_again(self) -> None:
        router = DeclaredRouter(declared("sql", "s3://lora/1"))
        router.lists(1, ["sql"])
        router.declare(declared("sql", "s3://lora/2"))
        router.lists(1, ["sql", V2])
        assert router.shares("sql") == {V2}
        router.declare(declared("sql", "s3://lora/1"))
        assert router.shares("sql") == {"sql"}


class TestOldVersions:
    def moved(self) -> DeclaredRouter:
        router = DeclaredRouter(declared("sql", version="1"))
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2"))
        router.lists(2, ["sql@2"])
        return router

    def test_the_old_version_may_leave_after_a_while_without_requests(self) -> None:
        router = self.moved()
        assert not router.versions.may_leave("sql@1")
        router.clock.advance(QUIET_SECONDS)
        assert router.versions.may_leave("sql@1")
        assert router.versions.may_leave("unknown@1")

    def test_one_that_comes_back_is_watched_anew(self) -> None:
        router = self.moved()
        router.clock.advance(QUIET_SECONDS)
        router.lists(1, [])
        router.lists(1, ["sql@1"])
        assert not router.versions.may_leave("sql@1")
        router.clock.advance(QUIET_SECONDS)
        assert router.versions.may_leave("sql@1")

    def test_versions_that_no_pod_lists_are_forgotten(self) -> None:
        router = DeclaredRouter()
        sizes = set()
        for version in range(20):
            old = [f"sql@{version - 1}"] if version else []
            router.declare(declared("sql", version=str(version)))
            router.lists(1, [f"sql@{version}", *old])
            router.clock.advance(60)
            router.lists(1, [f"sql@{version}"])
            sizes.add(entries(router.versions))
        assert len(sizes) == 1

    def test_not_while_requests_run_here_or_in_another_router(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.lists(1, ["sql@1"])
        reservation = router.routed("sql").reservation
        router.declare(declared("sql", version="2"))
        router.lists(2, ["sql@2"])
        router.clock.advance(60)
        assert not router.versions.may_leave("sql@1")
        reservation.release()
        router.clock.advance(QUIET_SECONDS)
        state = state_of(router.fleet, 1)
        share = PodShare((state.pod.address, state.pod.uid), 1, {"sql@1": 1})
        router.fleet.put_peer(
            LedgerShare("peer", 1, 0.25, {"pod-1": share}, {}, {}), router.clock.now()
        )
        assert not router.versions.may_leave("sql@1")
        router.fleet.forget_peer("peer", router.clock.now())
        router.clock.advance(QUIET_SECONDS)
        assert router.versions.may_leave("sql@1")


class TestIds:
    def test_a_request_that_only_one_pod_can_serve_gets_the_version_there(self) -> None:
        router = DeclaredRouter(declared("sql", version="1"))
        router.lists(1, ["sql@1"])
        router.declare(declared("sql", version="2"))
        router.lists(2, ["sql@2"])
        assert router.shares("sql") == {"sql@2"}
        models = []
        for number in (1, 2):
            routed = router.director.stick(RouteQuery("sql"), state_of(router.fleet, number))
            assert isinstance(routed, Routed)
            models.append(routed.model)
        assert models == ["sql@1", "sql@2"]
        router.lists(1, [])
        refused = router.director.stick(RouteQuery("sql"), state_of(router.fleet, 1))
        assert isinstance(refused, Refused)
        assert refused.refusal is Refusal.MODEL_ELSEWHERE


class TestRestarts:
    def test_a_router_that_is_started_sees_which_version_is_the_declared_one(self) -> None:
        router = DeclaredRouter(pods=2)
        router.lists(1, ["sql", V2])
        router.declare(declared("sql", "s3://lora/2", aliases=("gpt",)))
        assert router.shares("sql") == router.shares("gpt") == {V2}
        router.lists(2, ["sql", V2])
        assert router.shares("sql") == {V2}

    def test_also_if_the_lists_come_later(self) -> None:
        router = DeclaredRouter(declared("sql", "s3://lora/2"))
        router.lists(1, ["sql", V2])
        assert router.shares("sql") == {V2}
        assert router.versions.declared_as(V2) is not None

    def test_a_router_that_has_not_read_the_new_declaration_follows_what_pods_have(self) -> None:
        router = DeclaredRouter(declared("sql", "s3://lora/1"))
        router.lists(1, ["sql"])
        router.lists(2, [V2])
        assert router.shares("sql") == {"sql"}
        router.lists(1, [])
        assert router.shares("sql") == {V2}

    def test_a_pod_that_leaves_takes_its_versions_with_it(self) -> None:
        router = DeclaredRouter(declared("sql", version="2"))
        router.lists(1, ["sql@1"])
        assert router.shares("sql") == {"sql@1"}
        router.fleet.remove("pod-1")
        assert router.shares("sql") == {"sql@2"}


class TestDeclarations:
    def test_in_place_no_adapter_has_a_version(self) -> None:
        declarations = Declarations(in_place=True)
        declarations.replace("file", [declared("sql", "s3://lora/1", version="1")])
        declarations.replace("file", [declared("sql", "s3://lora/2")])
        assert [each.served_name for each in declarations] == ["sql"]

    def test_the_version_before_a_share_is_kept_until_the_share_is_over(self) -> None:
        declarations = Declarations()

        def kept(**fields: object) -> str:
            declarations.replace("file", [declared("sql", **fields)])  # type: ignore[arg-type]
            found = declarations.kept("sql")
            return "" if found is None else found.served_name

        assert not kept(version="1")
        assert kept(version="2", share=10) == "sql@1"
        assert kept(version="2", share=50) == "sql@1"
        assert kept(version="3", share=10) == "sql@1"
        assert not kept(version="1", share=10)
        assert kept(version="4", share=10) == "sql@1"
        assert not kept(version="4")
        assert kept(source="s3://lora/5", share=10) == "sql@4"
        declarations.replace("file", [])
        assert declarations.kept("sql") is None

    def test_adapters_are_added_and_withdrawn_one_by_one(self) -> None:
        declarations = Declarations()
        names: list[Collection[str]] = []
        declarations.subscribe_to_names(names.append)
        declarations.replace("file", [declared("a", aliases=("x",))])
        assert declarations.add("template", declared("b", origin="template"))
        assert not declarations.add("template", declared("x", origin="template"))
        assert declarations.add("template", declared("b", "s3://lora/2", origin="template"))
        declarations.replace("file", [declared("b", aliases=("x",))])
        assert [each.origin for each in declarations] == ["file"]
        declarations.discard("template", "b")
        declarations.discard("template", "b")
        assert [each.name for each in declarations] == ["b"]
        assert [set(each) for each in names] == [{"a"}, {"b"}, {"b"}, {"a", "b"}]
