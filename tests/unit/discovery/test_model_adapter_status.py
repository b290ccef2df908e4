"""The status that a ModelAdapter gets."""

from lora_router.adapters.adapter_state import AdapterState
from lora_router.adapters.fit_counts import FitCount
from lora_router.discovery.model_adapter_object import AIBRIX_FINALIZER, ModelAdapterStatus
from lora_router.discovery.model_adapter_status import is_same, timed, wanted_status
from tests.unit.discovery.model_adapter_objects import SPEC, model_adapter, record

RUNNING = AdapterState(pods=FitCount(4, 4), placed=2, loaded=2, instances=("ml/a", "ml/b"))


def conditions(status: ModelAdapterStatus) -> dict[str, tuple[str, str, str]]:
    return {each.type: (each.status, each.reason, each.message) for each in status.conditions}


def test_an_adapter_that_pods_serve_is_running_and_ready() -> None:
    status = wanted_status(record(), RUNNING)
    assert (status.phase, status.instances) == ("Running", ["a", "b"])
    assert (status.candidates, status.desired_replicas, status.ready_replicas) == (4, 2, 2)
    assert conditions(status) == {
        "Initialized": ("True", "Accepted", "adapter sql of base"),
        "Scheduled": ("True", "Scheduled", "it belongs on 2 of 4 pods that match"),
        "Bound": ("True", "Loaded", "2 pods have loaded it"),
        "Ready": ("True", "ModelAdapterAvailable", "2 of 2 pods serve it"),
    }
    assert {each.observed_generation for each in status.conditions} == {1}


def test_an_adapter_that_no_pod_has_says_what_it_waits_for() -> None:
    nothing = wanted_status(record(), AdapterState())
    assert (nothing.phase, conditions(nothing)["Scheduled"][1]) == ("Pending", "NoPods")
    assert "knows no ready pod of this namespace" in conditions(nothing)["Ready"][2]
    waiting = wanted_status(record(), AdapterState(pods=FitCount(3, 3)))
    assert (waiting.phase, conditions(waiting)["Scheduled"][1]) == ("Pending", "NotPlaced")
    assert "no matching pod has a place for it now (3 match)" in conditions(waiting)["Ready"][2]
    blocked = AdapterState(pods=FitCount(1, 1, 1, "ml/a: there is no such call"))
    text = conditions(wanted_status(record(), blocked))["Ready"][2]
    assert text == "no matching pod takes loads (1 match): ml/a: there is no such call"
    loading = wanted_status(record(), AdapterState(pods=FitCount(3, 3), placed=2))
    assert loading.phase == "Scheduled"
    assert conditions(loading)["Bound"] == ("False", "Loading", "0 of 2 pods have loaded it")
    assert conditions(loading)["Ready"][1:] == ("ModelAdapterUnavailable", "it is being loaded")


def test_pods_that_fail_are_named_in_printable_text_of_bounded_length() -> None:
    failing = AdapterState(
        pods=FitCount(3, 3),
        placed=2,
        failing=2,
        failures=(("ml/a", "no\nroom \x1b[31m"), ("ml/b", "x" * 2000)),
    )
    status = wanted_status(record(), failing)
    assert status.phase == "Failed"
    held, reason, message = conditions(status)["Bound"]
    assert (held, reason) == ("False", "ModelAdapterLoadingError")
    assert message.startswith("2 pods cannot load it: a: no room [31m; b: xxx")
    assert len(message) == 1024
    one = AdapterState(
        pods=FitCount(3, 3),
        placed=2,
        loaded=1,
        instances=("ml/c",),
        failing=1,
        failures=(("ml/a", "no room"),),
    )
    status = wanted_status(record(), one)
    assert (status.phase, conditions(status)["Ready"][0]) == ("Running", "True")
    assert conditions(status)["Bound"][0] == "False"


def test_a_resource_that_cannot_be_used_has_failed_and_says_why() -> None:
    unfit = record(model_adapter(spec={**SPEC, "artifactURL": "/etc"}))
    status = wanted_status(unfit, AdapterState())
    assert status.phase == "Failed"
    for kind in ("Initialized", "Ready"):
        held, reason, message = conditions(status)[kind]
        assert (held, reason) == ("False", "ValidationFailed")
        assert message.startswith("spec.artifactURL='/etc': must begin with a prefix")
    taken = wanted_status(record(), RUNNING, "'sql' is declared already by file")
    assert conditions(taken)["Initialized"][2] == "'sql' is declared already by file"


def test_a_resource_that_became_invalid_is_ready_and_says_what_is_wrong() -> None:
    unfit = model_adapter(spec={**SPEC, "artifactURL": "/etc/passwd"})
    status = wanted_status(record(unfit, record()), RUNNING)
    assert (status.phase, status.instances) == ("Running", ["a", "b"])
    held, reason, message = conditions(status)["Initialized"]
    assert (held, reason) == ("False", "ValidationFailed")
    assert message.startswith("spec.artifactURL='/etc/passwd'")
    assert message.endswith("; the last valid spec stays in use")
    assert conditions(status)["Ready"][0] == "True"


def test_a_resource_that_is_being_deleted_says_which_finalizers_keep_it() -> None:
    deleted = record(model_adapter(deleted=True, finalizers=[AIBRIX_FINALIZER]))
    status = wanted_status(deleted, RUNNING)
    assert (status.phase, status.ready_replicas) == ("Unknown", 2)
    held, reason, message = conditions(status)["Ready"]
    assert (held, reason) == ("False", "Deleting")
    assert message.endswith(f"until others remove its finalizers: {AIBRIX_FINALIZER}")


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    first = timed(
        wanted_status(record(), AdapterState(pods=FitCount(3, 3), placed=2)),
        ModelAdapterStatus(),
        "T1",
    )
    then = wanted_status(
        record(), AdapterState(pods=FitCount(3, 3), placed=2, loaded=1, instances=("ml/a",))
    )
    assert not is_same(first, then)
    second = timed(then, first, "T2")
    times = {each.type: each.last_transition_time for each in second.conditions}
    assert times == {"Initialized": "T1", "Scheduled": "T1", "Bound": "T1", "Ready": "T2"}
    assert is_same(second, then)
