"""The estimate of what is in a pod's host memory, whose size discovery knows or assumes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.adapter_beliefs import AWAY, IN_HOST_MEMORY, IN_SLOT, AdapterBeliefs
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.lora_spec import COMMAND_LINE, UNLIMITED, LoraSpec
from lora_router.fleet.pod_metrics import LoraResidency
from lora_router.simulator.adapter_slots import AdapterSlots
from lora_router.simulator.engine_options import EngineOptions
from tests.fleet import make_metrics, make_pod, state_of

NAMES = [f"a{number}" for number in range(8)]


def fleet_of_one(spec: LoraSpec, *, slots: int | None = 2, engine: str | None = None) -> Fleet:
    """Return a fleet with one idle pod."""
    fleet = Fleet()
    fleet.upsert(make_pod(1, lora=spec, engine=engine))
    if slots is not None:
        fleet.put_metrics(state_of(fleet, 1), replace(make_metrics(max_lora=slots), running=0.0))
    return fleet


def serve(fleet: Fleet, *adapters: str) -> None:
    fleet.put_models(
        state_of(fleet, 1), [ServedModel("base"), *(ServedModel(name, "base") for name in adapters)]
    )


def use(fleet: Fleet, *adapters: str) -> None:
    for adapter in adapters:
        fleet.ledger.reserve(state_of(fleet, 1), adapter).release()


def beliefs(fleet: Fleet) -> AdapterBeliefs:
    return state_of(fleet, 1).beliefs


def places(fleet: Fleet, *adapters: str) -> list[int]:
    return [beliefs(fleet).where(adapter) for adapter in adapters]


def test_an_adapter_that_was_evicted_from_host_memory_is_away() -> None:
    fleet = fleet_of_one(LoraSpec(host_memory=3))
    use(fleet, "a0", "a1", "a2", "a3")

    assert places(fleet, "a0", "a1", "a2", "a3") == [AWAY, IN_HOST_MEMORY, IN_SLOT, IN_SLOT]
    assert beliefs(fleet).memory.evictions == 1
    assert beliefs(fleet).seconds_to_load("a3") == 0
    assert 0 < beliefs(fleet).seconds_to_load("a1") < beliefs(fleet).seconds_to_load("a0")


def test_an_adapter_with_requests_is_not_evicted() -> None:
    fleet = fleet_of_one(LoraSpec(host_memory=2))
    open_request = fleet.ledger.reserve(state_of(fleet, 1), "a0")
    use(fleet, "a1", "a2", "a3")

    assert places(fleet, "a0", "a2", "a3") == [IN_SLOT, AWAY, IN_SLOT]
    open_request.release()


@pytest.mark.parametrize(
    ("engine", "size"), [(None, 2), ("vllm", 2), ("sglang", UNLIMITED), ("tgi", UNLIMITED)]
)
def test_a_size_that_nothing_names_is_assumed_to_be_that_of_vllm(
    engine: str | None, size: int
) -> None:
    assert beliefs(fleet_of_one(LoraSpec(), engine=engine)).memory.size == size


def test_without_a_known_number_of_slots_no_size_is_assumed() -> None:
    assert beliefs(fleet_of_one(LoraSpec(), slots=None)).memory.size == UNLIMITED


def test_host_memory_is_never_smaller_than_the_slots() -> None:
    fleet = fleet_of_one(LoraSpec(host_memory=1), slots=4)
    assert beliefs(fleet).memory.size == 4


def test_slots_that_discovery_names_are_known_before_the_first_scrape() -> None:
    fleet = fleet_of_one(LoraSpec(slots=3, source=COMMAND_LINE), slots=None)
    assert (beliefs(fleet).slots, beliefs(fleet).free_slots) == (3, 3)
    assert beliefs(fleet).memory.size == 3

    fleet.put_metrics(state_of(fleet, 1), make_metrics(max_lora=4))
    assert beliefs(fleet).slots == 4


def test_a_changed_size_applies_at_once() -> None:
    fleet = fleet_of_one(LoraSpec(host_memory=8))
    use(fleet, "a0", "a1", "a2", "a3")
    fleet.upsert(make_pod(1, lora=LoraSpec(host_memory=3)))

    assert places(fleet, "a0", "a1") == [AWAY, IN_HOST_MEMORY]


def test_no_more_adapters_are_believed_to_be_there_than_fit() -> None:
    fleet = fleet_of_one(LoraSpec(host_memory=3), slots=2)
    state = state_of(fleet, 1)
    requests = [fleet.ledger.reserve(state, name) for name in NAMES]
    for step in ("used", "derived"):
        kept = [name for name in NAMES if beliefs(fleet).in_host_memory(name)]
        assert len(kept) <= 3, step
        beliefs(fleet).told(state.pod.lora, None)
    for request in requests:
        request.release()
    assert [name for name in NAMES if beliefs(fleet).in_host_memory(name)] == NAMES[-3:]


class TestLoadedBefore:
    """Adapters that the server loaded before the first request that this router knows of."""

    def test_preloaded_adapters_that_fit_are_in_host_memory(self) -> None:
        fleet = fleet_of_one(LoraSpec(host_memory=4, preloaded=("a0", "a1", "a2")))
        assert places(fleet, "a0", "a2", "a3") == [IN_HOST_MEMORY, IN_HOST_MEMORY, AWAY]

    def test_of_too_many_the_last_ones_are(self) -> None:
        fleet = fleet_of_one(LoraSpec(host_memory=2, preloaded=("a0", "a1", "a2")))
        assert places(fleet, "a0", "a1", "a2") == [AWAY, IN_HOST_MEMORY, IN_HOST_MEMORY]

    def test_used_ones_evict_them_in_order(self) -> None:
        fleet = fleet_of_one(LoraSpec(host_memory=3, preloaded=("a0", "a1", "a2", "a3")))
        use(fleet, "a2", "a7")

        assert places(fleet, "a1", "a3", "a2", "a7") == [AWAY, IN_HOST_MEMORY, IN_SLOT, IN_SLOT]

    def test_a_list_says_what_was_loaded_if_the_server_loads_what_it_lists(self) -> None:
        fleet = fleet_of_one(LoraSpec(host_memory=3, loads_when_listed=True))
        serve(fleet, "a0", "a1", "a2")
        assert places(fleet, "a0", "a1", "a2", "a3") == [IN_HOST_MEMORY] * 3 + [AWAY]

    def test_other_lists_say_nothing(self) -> None:
        fleet = fleet_of_one(LoraSpec(host_memory=3))
        serve(fleet, "a0", "a1")
        assert places(fleet, "a0", "a1") == [AWAY, AWAY]

    def test_what_is_new_in_the_list_was_just_loaded_into_a_slot(self) -> None:
        fleet = fleet_of_one(LoraSpec(host_memory=3, loads_when_listed=True))
        serve(fleet, "a0", "a1", "a2")
        use(fleet, "a0", "a1")
        serve(fleet, "a0", "a1", "a2", "a3")

        assert places(fleet, "a2", "a0", "a1", "a3") == [AWAY, IN_HOST_MEMORY, IN_SLOT, IN_SLOT]


def test_a_restarted_server_has_what_it_loads_when_it_starts() -> None:
    fleet = fleet_of_one(LoraSpec(host_memory=4, preloaded=("a0", "a1")))
    state = state_of(fleet, 1)
    idle = replace(make_metrics(max_lora=2), running=0.0)
    fleet.put_metrics(state, replace(idle, started_at=1.7e9))
    use(fleet, "a5", "a7")
    assert places(fleet, "a0", "a7") == [IN_HOST_MEMORY, IN_SLOT]

    fleet.put_metrics(state, replace(idle, started_at=1.8e9))
    assert places(fleet, "a0", "a1", "a7") == [IN_HOST_MEMORY, IN_HOST_MEMORY, AWAY]
    assert beliefs(fleet).memory.evictions == 0


def test_what_a_server_reports_is_believed_whatever_its_size() -> None:
    fleet = fleet_of_one(LoraSpec(host_memory=3))
    use(fleet, "a0", "a1", "a2")
    said = LoraResidency(frozenset({"a2"}), frozenset({"a5"}), 2)
    fleet.put_metrics(state_of(fleet, 1), replace(make_metrics(), running=0.0, residency=said))

    assert places(fleet, "a2", "a5", "a0", "a1") == [IN_SLOT, IN_HOST_MEMORY, AWAY, AWAY]


@given(
    slots=st.integers(1, 3),
    more=st.integers(0, 4),
    preloaded=st.lists(st.sampled_from(NAMES), unique=True),
    steps=st.lists(st.sampled_from([*NAMES, "derive"]), max_size=40),
)
def test_the_estimate_is_what_a_pod_has_as_long_as_its_slots_suffice(
    slots: int, more: int, preloaded: list[str], steps: list[str]
) -> None:
    """Each step begins a request of an adapter, or ends its request if it has one.

    Or the estimate is derived from the order of last use again, which must not change it.
    """
    room = slots + more
    fits = tuple(preloaded)[:room]
    pod = AdapterSlots(EngineOptions(max_loras=slots, max_cpu_loras=room))
    pod.preload(fits)
    spec = LoraSpec(slots=slots, host_memory=room, preloaded=fits)
    fleet = fleet_of_one(spec, slots=slots)
    open_requests: dict[str, Reservation] = {}
    for name in steps:
        reservation = open_requests.pop(name, None)
        if name == "derive":
            beliefs(fleet).told(spec, None)
        elif reservation is not None:
            pod.leave(name)
            reservation.release()
        elif pod.has_room_for(name):
            pod.take(name, 0.0)
            open_requests[name] = fleet.ledger.reserve(state_of(fleet, 1), name)
        believed = {name for name in NAMES if beliefs(fleet).where(name) == IN_SLOT}
        assert believed == set(pod.resident)
        kept = {name for name in NAMES if beliefs(fleet).in_host_memory(name)}
        assert kept == set(pod.host_memory)
