"""What becomes of the adapters of templates: how long they are declared, and how many may wait."""

from dataclasses import replace

from lora_router.adapters.declarations import derived_version
from lora_router.adapters.templated import FORGET_SECONDS, MAX_FAILED, MAX_NEW
from lora_router.adapters.templates import Template
from lora_router.routing.outcome import Routed
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.roll import Limits
from tests.fleet import state_of
from tests.unit.adapters.declared_router import DeclaredRouter

TENANTS = Template("base", ("tenant-*",), "s3://lora/{name}")
MOVED = Template("base", ("tenant-*",), "s3://lora/new/{name}")


def moved(name: str) -> str:
    """Return the name under which pods serve an adapter after its template has changed."""
    return f"{name}@{derived_version(f's3://lora/new/{name}')}"


class TestVersions:
    """After its source has changed, an adapter of a template has a version."""

    def changed(self, limits: Limits | None = None) -> DeclaredRouter:
        router = DeclaredRouter(limits=limits)
        router.templated.replace([TENANTS])
        router.held("tenant-1")
        router.lists(1, ["tenant-1"])
        router.templated.replace([MOVED])
        return router

    def test_it_stays_declared_while_a_pod_lists_a_version(self) -> None:
        router = self.changed()
        router.lists(1, [moved("tenant-1")])
        router.clock.advance(3 * FORGET_SECONDS)
        assert [each.served_name for each in router.declarations] == [moved("tenant-1")]
        assert isinstance(router.send("tenant-1"), Routed)

        router.lists(1, [])
        router.clock.advance(FORGET_SECONDS + 5)
        assert not router.declarations

    def test_also_while_pods_list_only_one_that_is_two_sources_old(self) -> None:
        router = self.changed()
        router.lists(1, [moved("tenant-1")])
        router.templated.replace([Template("base", ("tenant-*",), "s3://lora/newer/{name}")])
        router.clock.advance(3 * FORGET_SECONDS)
        assert [each.name for each in router.declarations] == ["tenant-1"]
        assert router.shares("tenant-1") == {moved("tenant-1")}

    def test_requests_keep_it_declared_that_ask_for_its_version(self) -> None:
        router = self.changed()
        router.lists(1, [])
        for _ in range(4):
            router.clock.advance(FORGET_SECONDS / 2)
            assert [each.name for each in router.declarations] == ["tenant-1"]
            router.send("tenant-1")

    def test_another_name_may_wait_in_its_place_once_a_pod_lists_it(self) -> None:
        router = self.changed(Limits(2 * MAX_NEW, 2 * MAX_NEW))
        for number in range(2, MAX_NEW + 2):
            router.held(f"tenant-{number}")
        router.lists(1, [moved("tenant-2")])
        router.held("tenant-new")

    def test_a_router_that_is_started_declares_adapters_of_which_pods_list_a_version(self) -> None:
        router = DeclaredRouter()
        router.lists(1, [moved("tenant-1")])
        router.templated.replace([MOVED])
        router.clock.advance(1)
        assert [each.served_name for each in router.declarations] == [moved("tenant-1")]

    def test_one_that_was_forgotten_before_the_change_has_none(self) -> None:
        """The request that asks for it would wait for another name than pods will list."""
        router = DeclaredRouter()
        router.templated.replace([TENANTS])
        router.held("tenant-1")
        router.lists(1, ["tenant-1"])
        router.lists(1, [])
        router.clock.advance(FORGET_SECONDS + 5)
        router.templated.replace([MOVED])
        router.late.clear()

        router.held("tenant-1")

        [adapter] = router.declarations
        assert adapter.source == "s3://lora/new/tenant-1"
        assert router.first_use.waiting() == {adapter.served_name}
        router.lists(1, [adapter.served_name])
        assert router.late_names == ["tenant-1"]

    def test_unless_a_pod_that_is_not_ready_may_have_it(self) -> None:
        router = DeclaredRouter()
        router.templated.replace([TENANTS])
        router.held("tenant-1")
        router.lists(1, ["tenant-1"])
        pod = state_of(router.fleet, 1).pod
        router.fleet.upsert(replace(pod, ready=False))
        router.clock.advance(FORGET_SECONDS + 5)
        assert not router.declarations
        router.templated.replace([MOVED])

        router.fleet.upsert(pod)
        router.clock.advance(1)

        assert [each.served_name for each in router.declarations] == [moved("tenant-1")]


class TestNamesThatPodsDoNotFind:
    def flooded(self, names: int = MAX_NEW) -> DeclaredRouter:
        """Return a router that was asked for names whose load failed at once."""
        router = DeclaredRouter(limits=Limits(2 * MAX_NEW, 2 * MAX_NEW))
        router.templated.replace([TENANTS])
        for number in range(names):
            router.held(f"tenant-bogus-{number}")
            router.first_use.failed(f"tenant-bogus-{number}", "no pod can load it", 30.0)
        return router

    def test_they_do_not_keep_others_from_their_first_load(self) -> None:
        router = self.flooded()
        router.held("tenant-real")
        assert router.wanted[-1] == "tenant-real"

    def test_they_are_refused_at_once_until_their_pause_is_over(self) -> None:
        router = self.flooded()
        router.wanted.clear()
        for _ in range(2):
            outcome = router.send("tenant-bogus-0")
            assert isinstance(outcome, Refused)
            assert outcome.refusal is Refusal.ADAPTER_NOT_LOADED
            router.clock.advance(14.0)
        assert not router.wanted
        router.clock.advance(2.1)
        router.held("tenant-bogus-0")
        assert router.wanted == ["tenant-bogus-0"]

    def test_when_they_wait_again_they_count_again(self) -> None:
        router = self.flooded(MAX_NEW + 1)
        router.clock.advance(30.1)
        for number in range(MAX_NEW):
            router.held(f"tenant-bogus-{number}")
        for name in (f"tenant-bogus-{MAX_NEW}", "tenant-real"):
            outcome = router.send(name)
            assert isinstance(outcome, Refused)
            assert outcome.refusal is Refusal.TOO_MANY_HELD
        router.held("tenant-bogus-0", "again")
        router.first_use.heard("tenant-bogus-0", "a peer says so", 30.0)
        router.held("tenant-real")

    def test_one_that_pods_list_after_all_needs_no_place_any_more(self) -> None:
        router = self.flooded(1)
        router.lists(1, ["tenant-bogus-0"])
        router.lists(1, [])
        for number in range(MAX_NEW):
            router.held(f"tenant-{number}")
        router.clock.advance(30.1 - router.clock.now())
        router.templated.want("tenant-bogus-0")
        assert router.templated.may_wait("tenant-bogus-0")

    def test_few_of_them_are_remembered(self) -> None:
        router = self.flooded(2 * MAX_FAILED)
        router.held("tenant-real")
        assert len(router.templated) == len(router.declarations) <= MAX_FAILED + 1
        assert router.declarations.get("tenant-bogus-0") is None
        assert router.declarations.get(f"tenant-bogus-{2 * MAX_FAILED - 1}") is not None
