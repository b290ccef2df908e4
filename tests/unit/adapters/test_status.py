"""What is shown of declared adapters, and of pods that load them."""

import pytest

from lora_router.adapters.calls import Call, Outcome
from lora_router.adapters.declared import WantedPods
from lora_router.adapters.status import AdapterStatus, Failing, pod_status, rows_in_steps
from tests.fleet import make_pod
from tests.unit.adapters.loading import Loading, adapter, adapters

EVERYWHERE = WantedPods(everywhere=True)


def rows(loading: Loading) -> dict[str, AdapterStatus]:
    found = [row for part in rows_in_steps(loading.loader) for row in part]
    return {row.adapter.name: row for row in found}


def test_a_loaded_adapter_names_its_pods() -> None:
    loading = Loading(2, declared=[adapter("a", pods=EVERYWHERE)])
    loading.run(2.0)

    row = rows(loading)["a"]

    assert row.state == "loaded"
    assert sorted(row.wanted) == sorted(row.loaded) == ["pod-1", "pod-2"]
    assert (row.wanted_count, row.loaded_count, row.failing_count) == (2, 2, 0)


def test_a_failing_adapter_names_pod_reason_and_next_try() -> None:
    loading = Loading(2, declared=[adapter("a", pods=EVERYWHERE)])
    bad = loading.state(1)

    def answer(call: Call) -> Outcome:
        return "refused" if call.state is bad else "done"

    loading.pods.answer = answer
    loading.run(0.5)

    row = rows(loading)["a"]

    assert (row.state, row.loaded) == ("partly", ("pod-2",))
    (failing,) = row.failing
    assert failing == Failing("pod-1", "load", "it is refused", 1, failing.next_try_in)
    assert 0 < failing.next_try_in < 1.5


def test_the_state_of_an_adapter_that_no_pod_has() -> None:
    loading = Loading(1, memory=2, declared=adapters(3))
    loading.pods.seconds = 10.0
    assert {row.state for row in rows(loading).values()} == {"unplaced"}, "nothing is planned yet"

    loading.run(1.0)

    assert sorted(row.state for row in rows(loading).values()) == ["loading", "unplaced", "waiting"]
    assert rows(loading)["a0"].loading == ("pod-1",)


def test_an_adapter_without_a_place_says_why() -> None:
    unknown = adapter("unknown", base_model="mistral")
    loading = Loading(1, memory=1, declared=[*adapters(2), unknown])
    loading.run(1.0)

    found = {name: row.unplaced_because for name, row in rows(loading).items()}

    assert found == {
        "a0": "",
        "a1": "no matching pod has a place for it now (1 match)",
        "unknown": "no ready pod serves its base model",
    }


def test_a_pod_shows_what_it_does_and_why_it_does_not() -> None:
    loading = Loading(1, declared=adapters(2))
    pod = loading.loader.pods[loading.state(1)]
    loading.run(0.05)
    assert pod_status(pod).call == "load a0"

    loading.pods.answer = lambda _: "cannot-load"
    loading.run(1.0)

    shown = pod_status(pod)
    assert (shown.call, shown.put_off) == ("", "cannot-load")
    assert (shown.cannot_load, shown.missing) == ("it is cannot-load", 2)


def test_thousands_of_adapters_are_shown_in_slices() -> None:
    loading = Loading(1, memory=8, declared=adapters(500))

    assert max(len(part) for part in rows_in_steps(loading.loader)) < 100


def test_a_pod_whose_metrics_cannot_be_read_is_why_an_adapter_has_no_place() -> None:
    loading = Loading(0, declared=adapters(1))
    loading.fleet.upsert(make_pod(1))
    loading.pods.show(loading.state(1))
    loading.run(1.0)

    assert rows(loading)["a0"].unplaced_because == (
        "no matching pod takes loads (1 match): "
        "pod-1: its host memory is not known: /metrics has not been read"
    )


def test_a_pod_whose_list_has_not_been_read_is_why_an_adapter_has_no_place() -> None:
    loading = Loading(0, declared=adapters(1))
    loading.fleet.upsert(make_pod(1))
    loading.run(1.0)

    assert rows(loading)["a0"].unplaced_because == (
        "the list of 1 ready pod has not been read yet, and no other serves its base model"
    )


def test_fewer_copies_than_declared_are_not_shown_as_loaded() -> None:
    twice = [adapter(f"a{number}", pods=WantedPods(copies=2)) for number in range(2)]
    loading = Loading(2, memory=1, declared=twice)
    loading.run(2.0)

    row = rows(loading)["a0"]

    assert (row.state, row.loaded_count, row.wanted_count) == ("partly", 1, 1)
    assert row.unplaced_because == "1 of the 2 copies that it declares have no place now"


def test_the_next_try_is_not_before_the_end_of_the_rest_of_its_pod() -> None:
    loading = Loading(1, declared=adapters(1))
    loading.pods.answer = lambda _: "refused"
    loading.run(0.5)
    loading.loader.pods[loading.state(1)].blocked_until = loading.clock.now() + 40.0

    (failing,) = rows(loading)["a0"].failing

    assert failing.next_try_in == pytest.approx(40.0)
