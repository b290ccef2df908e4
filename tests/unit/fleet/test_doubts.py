"""A pod that answers 404 for a model that its list has."""

from lora_router.fleet.answer import Answer
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.doubts import FORGET_SECONDS
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
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


class TestAPodThatKeepsDenyingWhatItsListHas:
    def bench(self) -> tuple[Fleet, list[float]]:
        clock = [1000.0]
        return make_fleet(3, outliers=Outliers(HealthRules(), lambda: clock[0])), clock

    def deny_and_read(self, fleet: Fleet) -> None:
        deny(fleet, 2)
        fleet.put_models(state_of(fleet, 2), MODELS)

    def test_the_doubt_lasts_longer_each_time(self) -> None:
        fleet, clock = self.bench()
        waits = []
        for _ in range(9):
            self.deny_and_read(fleet)
            started = clock[0]
            while len(pods(fleet)) == 2:
                clock[0] += 0.5
                fleet.check_health()
            waits.append(clock[0] - started)

        assert waits == [0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]

    def test_after_a_while_without_a_404_the_next_is_the_first_again(self) -> None:
        fleet, clock = self.bench()
        self.deny_and_read(fleet)
        clock[0] += FORGET_SECONDS + 1

        self.deny_and_read(fleet)

        assert len(pods(fleet)) == 3

    def test_a_pod_that_leaves_meanwhile_is_forgotten(self) -> None:
        fleet, clock = self.bench()
        self.deny_and_read(fleet)
        self.deny_and_read(fleet)

        fleet.remove("pod-2")
        clock[0] += 100.0
        fleet.check_health()

        assert pods(fleet) == ["pod-1", "pod-3"]
