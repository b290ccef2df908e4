"""A pod that answers 404 for a model that its list has."""

from lora_router.fleet.answer import Answer
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from tests.fleet import make_fleet, make_pod, state_of

MODELS = [ServedModel("base"), ServedModel("sql-lora", "base")]
NOT_FOUND = Answer(404, details="via_upstream")


def deny(fleet: Fleet, number: int, answer: Answer = NOT_FOUND) -> None:
    """Let a pod answer that it does not serve ``sql-lora``."""
    request = fleet.ledger.reserve(state_of(fleet, number), "sql-lora")
    request.answered(answer)
    request.release()


def pods(fleet: Fleet, model: str = "sql-lora") -> list[str]:
    return [state.pod.name for state in fleet.serving(model).pods]


def test_other_pods_are_preferred_until_its_list_was_read_again() -> None:
    fleet = make_fleet(3)

    deny(fleet, 2)
    assert pods(fleet) == ["pod-1", "pod-3"]
    assert pods(fleet, "base") == ["pod-1", "pod-2", "pod-3"]
    fleet.put_models(state_of(fleet, 2), MODELS)

    assert pods(fleet) == ["pod-1", "pod-2", "pod-3"]


def test_its_list_is_asked_for_once() -> None:
    fleet = make_fleet(3)
    asked: list[PodState] = []
    fleet.changes.doubted.subscribe(asked.extend)

    deny(fleet, 2)
    deny(fleet, 2)

    assert asked == [state_of(fleet, 2)]


def test_if_all_pods_deny_it_all_are_used() -> None:
    fleet = make_fleet(2)

    deny(fleet, 1)
    deny(fleet, 2)

    assert pods(fleet) == ["pod-1", "pod-2"]


def test_envoys_own_404_says_nothing_about_the_pod() -> None:
    fleet = make_fleet(2)

    deny(fleet, 2, Answer(404, details="route_not_found"))

    assert pods(fleet) == ["pod-1", "pod-2"]


def test_the_list_in_the_pods_file_is_the_operators_word() -> None:
    fleet = make_fleet(0)
    fleet.upsert(make_pod(1, models=("base", "sql-lora")))
    fleet.upsert(make_pod(2, models=("base", "sql-lora")))

    deny(fleet, 2)

    assert pods(fleet) == ["pod-1", "pod-2"]


def test_a_pod_that_left_is_not_remembered() -> None:
    fleet = make_fleet(2)
    deny(fleet, 2)

    fleet.remove("pod-2")
    fleet.upsert(make_pod(2))
    fleet.put_models(state_of(fleet, 2), MODELS)

    assert pods(fleet) == ["pod-1", "pod-2"]
