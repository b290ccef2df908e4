"""The one way of readings into the fleet."""

import pytest

from lora_router.fleet import catalog as catalog_module
from lora_router.fleet.catalog import Catalog, ServedModel
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.reading import ReadFailure, Reading, last_readings
from lora_router.scrape.intake import Intake, RefusedReading
from tests.calls import calls_of
from tests.fleet import ManualClock, make_fleet, make_metrics, make_pod, state_of

LISTED = Catalog.of([ServedModel("base"), ServedModel("new", "base")])


class Here:
    """A fleet, its intake, and its clock."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.outliers = Outliers(HealthRules(), self.clock.now)
        self.fleet = make_fleet(2, adapters=("a", "b"), outliers=self.outliers)
        self.intake = Intake(self.fleet, self.clock.now)
        self.pod = state_of(self.fleet, 1)

    def metrics(self, age: float = 0.0, *adapters: str) -> Reading:
        read_at = self.clock.now() - age
        return Reading(self.pod, read_at, make_metrics(adapters, scraped_at=read_at))

    def models(self, catalog: Catalog = LISTED, age: float = 0.0) -> Reading:
        return Reading(self.pod, self.clock.now() - age, catalog)


def test_a_snapshot_of_another_process_is_as_good_as_one_of_this_one() -> None:
    here = Here()

    here.intake.receive(here.metrics(0.2, "a", "stranger"))

    assert here.pod.metrics is not None
    assert here.pod.metrics.scraped_at == here.clock.now() - 0.2
    assert here.pod.beliefs.active == {"a", "stranger"}
    assert here.pod.beliefs.slots == 4


def test_an_older_snapshot_does_not_replace_a_later_one() -> None:
    here = Here()
    here.intake.put(here.metrics(0.1, "a"))

    with pytest.raises(RefusedReading) as refused:
        here.intake.receive(here.metrics(0.2, "b"))

    assert refused.value.cause == "out-of-order"
    assert refused.value.is_outdated
    assert here.pod.beliefs.active == {"a"}


def test_a_reading_that_was_on_its_way_for_too_long_is_not_used() -> None:
    here = Here()

    with pytest.raises(RefusedReading) as refused:
        here.intake.receive(here.metrics(6.0))

    assert (refused.value.cause, here.pod.metrics) == ("stale", None)
    here.intake.put(here.metrics(6.0))
    assert here.pod.metrics is not None, "a long page of this process takes its time"


def test_a_reading_of_a_server_that_was_replaced_is_not_used() -> None:
    here = Here()
    here.fleet.upsert(make_pod(1, uid="new"))

    for reading in (here.metrics(), here.models()):
        with pytest.raises(RefusedReading, match="has left"):
            here.intake.receive(reading)

    assert state_of(here.fleet, 1).metrics is None


def test_failed_reads_count_until_one_succeeds() -> None:
    here = Here()
    for _ in range(3):
        here.clock.advance(1.0)
        failure = ReadFailure("metrics", "connect", unreachable=True)
        here.intake.put(Reading(here.pod, here.clock.now(), failure))
    assert here.pod.unreachable_scrapes == 3
    assert here.pod.pod.name in here.outliers.unwell.ejected()

    here.clock.advance(1.0)
    here.intake.put(here.metrics())

    assert here.pod.unreachable_scrapes == 0
    assert here.pod.pod.name not in here.outliers.unwell.ejected()


def test_a_failure_to_read_a_list_says_nothing_about_the_metrics() -> None:
    here = Here()

    here.intake.put(Reading(here.pod, here.clock.now(), ReadFailure("models", "timeout")))

    assert here.pod.scrape_failures == 0


def test_a_list_is_used_and_an_older_one_is_not() -> None:
    here = Here()
    here.intake.receive(here.models(Catalog.of([ServedModel("base"), ServedModel("a", "base")])))

    with pytest.raises(RefusedReading, match="later list"):
        here.intake.receive(here.models(age=0.5))

    assert set(here.pod.adapters) == {"a"}


def test_a_list_that_lost_everything_is_doubted_whoever_read_it() -> None:
    here = Here()

    with pytest.raises(RefusedReading) as refused:
        here.intake.receive(here.models())

    assert refused.value.cause == "doubted"
    assert set(here.pod.adapters) == {"a", "b", "new"}, "what it adds is believed"
    here.intake.confirm_loss(here.pod)
    here.intake.receive(here.models())
    assert set(here.pod.adapters) == {"new"}


def test_what_is_known_of_lists_is_forgotten_with_the_pod() -> None:
    here = Here()
    here.intake.confirm_loss(here.pod)
    here.fleet.upsert(make_pod(1, ready=False))
    here.fleet.upsert(make_pod(1))

    with pytest.raises(RefusedReading, match="none of the 2 adapters"):
        here.intake.receive(here.models())


def test_a_list_of_a_pod_whose_models_the_pods_file_names_is_ignored() -> None:
    here = Here()
    here.fleet.upsert(make_pod(1, models=("base", "filed")))

    here.intake.receive(here.models())

    assert set(here.pod.adapters) == {"filed"}


def test_lists_that_need_too_much_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here()
    monkeypatch.setattr("lora_router.fleet.fleet.MAX_CATALOG_BYTES", 10)
    assert catalog_module.MAX_CATALOG_BYTES > 10

    with pytest.raises(RefusedReading) as refused:
        here.intake.receive(here.models(Catalog.of([ServedModel("base"), ServedModel("a", "x")])))

    assert refused.value.cause == "too-large"


def test_everything_that_is_known_can_be_handed_on_as_readings() -> None:
    here, there = Here(), Here()
    here.intake.put(here.metrics(0.5, "a"))

    for reading in last_readings(here.fleet, here.clock.now()):
        state = there.fleet.get(reading.state.pod.name)
        assert state is not None
        there.intake.receive(Reading(state, reading.read_at, reading.found))

    assert there.pod.metrics == here.pod.metrics
    assert set(there.pod.adapters) == {"a", "b"}


def test_withdrawing_and_restoring_an_adapter_does_not_look_through_long_lists() -> None:
    costs = []
    for size in (20, 2000):
        here = Here()
        listed = Catalog.of([ServedModel(f"a{each}", "base") for each in range(size)])
        here.intake.confirm_loss(here.pod)
        here.intake.put(here.models(listed))

        def withdraw_and_restore(here: Here = here) -> None:
            here.intake.withdraw(here.pod, ("a1",))
            assert "a1" not in here.pod.adapters
            here.intake.restore(here.pod, ("a1",))

        costs.append(calls_of(withdraw_and_restore))
        assert here.pod.catalog is listed

    assert costs[0] == costs[1]
