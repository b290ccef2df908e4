"""What is believed of adapters that a pod lists no more."""

from dataclasses import replace

from lora_router.debug.fact_rows import pod_facts
from lora_router.debug.fleet_rows import adapters_on
from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import COMMAND_LINE, LoraSpec
from lora_router.fleet.pod_state import PodState
from lora_router.scrape.intake import Intake
from tests.fleet import make_metrics, make_pod, state_of

SPEC = LoraSpec(slots=2, host_memory=4, source=COMMAND_LINE, loads_when_listed=True)


def a_pod(*adapters: str) -> tuple[Fleet, PodState]:
    """Return a fleet of one pod that lists some adapters and has host memory for four."""
    fleet = Fleet()
    fleet.upsert(make_pod(1, lora=SPEC))
    state = state_of(fleet, 1)
    fleet.put_metrics(state, replace(make_metrics(max_lora=2), running=0.0))
    serve(fleet, *adapters)
    return fleet, state


def serve(fleet: Fleet, *adapters: str) -> None:
    fleet.put_models(
        state_of(fleet, 1), [ServedModel("base"), *(ServedModel(name, "base") for name in adapters)]
    )


def use(fleet: Fleet, *adapters: str) -> None:
    for adapter in adapters:
        fleet.ledger.reserve(state_of(fleet, 1), adapter).release()


def shown(state: PodState) -> list[str]:
    return sorted(name for name, _ in adapters_on(state, 200.0))


def test_an_adapter_that_was_unloaded_is_nowhere_and_takes_nobodys_place() -> None:
    fleet, state = a_pod("a", "b", "c", "zz")
    use(fleet, "a", "zz")

    serve(fleet, "a", "b", "c", "d")
    assert shown(state) == ["a", "d"]
    assert state.beliefs.where("zz") == AWAY
    places = [state.beliefs.where(name) for name in ("a", "b", "c", "d")]
    assert places == [IN_SLOT, IN_HOST_MEMORY, IN_HOST_MEMORY, IN_SLOT]
    assert pod_facts(state, 200.0, 0.0).evicted == 0


def test_an_adapter_that_is_loaded_again_was_just_loaded() -> None:
    fleet, state = a_pod("a", "zz")
    use(fleet, "a", "zz")
    serve(fleet, "a")
    serve(fleet, "a", "zz")
    assert state.beliefs.where("zz") == IN_SLOT


def test_an_unloaded_adapter_with_requests_is_on_the_pod_until_they_have_ended() -> None:
    fleet, state = a_pod("a", "b", "c", "zz")
    running = [fleet.ledger.reserve(state, "zz") for _ in range(2)]
    serve(fleet, "a", "b", "c", "d")
    use(fleet, "d", "c")

    running[0].release()
    assert state.beliefs.where("zz") == IN_SLOT
    running[1].release()
    assert (shown(state), state.beliefs.where("zz")) == (["c", "d"], AWAY)
    # There is room for all that are listed again.
    assert state.beliefs.where("a") == state.beliefs.where("b") == IN_HOST_MEMORY


def test_a_page_that_was_made_before_the_unload_does_not_bring_the_adapter_back() -> None:
    fleet, state = a_pod("a", "zz")
    serve(fleet, "a")
    fleet.put_metrics(state, make_metrics(("zz",), max_lora=2, scraped_at=101.0))
    assert shown(state) == ["zz"]

    fleet.put_metrics(state, make_metrics((), max_lora=2, scraped_at=102.0))
    assert shown(state) == []


def test_what_the_pods_file_names_no_more_is_forgotten() -> None:
    fleet = Fleet()
    fleet.upsert(make_pod(1, lora=SPEC, models=("base", "a", "zz")))
    use(fleet, "a", "zz")
    fleet.upsert(make_pod(1, lora=SPEC, models=("base", "a")))
    assert shown(state_of(fleet, 1)) == ["a"]


def test_a_pod_that_is_not_ready_for_a_moment_keeps_its_adapters() -> None:
    fleet, state = a_pod("a", "b")
    use(fleet, "a")
    fleet.upsert(make_pod(1, lora=SPEC, ready=False))
    fleet.upsert(make_pod(1, lora=SPEC))
    assert (shown(state), state.beliefs.where("a")) == (["a"], IN_SLOT)


class TestWithdrawn:
    """Adapters that get no more requests because they are about to be unloaded."""

    def test_what_is_withdrawn_is_loaded_until_it_is_unloaded(self) -> None:
        fleet, state = a_pod("a", "b", "zz")
        use(fleet, "zz")
        intake = Intake(fleet, lambda: 100.0)

        intake.withdraw(state, ("zz",))
        assert "zz" not in state.adapters
        assert state.beliefs.where("zz") == IN_SLOT

        intake.remove_adapter(state, "zz")
        assert (shown(state), state.beliefs.where("zz")) == ([], AWAY)

    def test_what_is_restored_is_where_it_was(self) -> None:
        fleet, state = a_pod("a", "b", "c", "d")
        use(fleet, "a", "b", "c", "d")
        intake = Intake(fleet, lambda: 100.0)

        intake.withdraw(state, ("a",))
        intake.restore(state, ("a",))
        assert list(state.beliefs.last_uses) == ["a", "b", "c", "d"]
        assert state.beliefs.where("a") == IN_HOST_MEMORY
