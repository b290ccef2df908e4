"""Health: which evidence makes a pod suspect or ejects it, and how it comes back."""

from dataclasses import replace

import pytest

from lora_router.fleet.answer import Answer
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.health import EJECTED, HEALTHY, SUSPECT, TRYING, Health, HealthRules
from lora_router.fleet.ledger import Reservation
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_state import PodState
from tests.fleet import make_fleet, make_metrics, make_pod, state_of

GOOD = Answer(200, details="via_upstream")
NOT_FOUND = Answer(404, details="via_upstream")
FAILED = Answer(500, details="via_upstream")
REFUSED = Answer(
    503, details="upstream_reset_before_response_started{connection_failure|delayed_connect}"
)


class Bench:
    """A fleet whose pods are healthy, a clock, and the probes that were asked for."""

    def __init__(self, pods: int = 4, rules: HealthRules | None = None, *, probe: bool = True):
        self.seconds = 1000.0
        self.outliers = Outliers(rules or HealthRules(), lambda: self.seconds)
        self.fleet = make_fleet(pods, outliers=self.outliers)
        self.probes: list[PodState] = []
        if probe:
            self.outliers.on_probe = self.probes.append
        for number in range(1, pods + 1):
            self.answer(number, GOOD)

    def send(self, number: int, *, streamed: bool = False) -> Reservation:
        return self.fleet.ledger.reserve(state_of(self.fleet, number), None, streamed=streamed)

    def answer(self, number: int, answer: Answer, *, after: float = 0.05) -> None:
        request = self.send(number)
        self.seconds += after
        request.answered(answer)
        request.release()

    def fail(self, number: int, times: int = 3) -> None:
        for _ in range(times):
            self.answer(number, FAILED)

    def tick(self, seconds: float = 0.1) -> None:
        self.seconds += seconds
        self.fleet.check_health()

    def health(self, number: int) -> Health:
        return state_of(self.fleet, number).health.state

    @property
    def used(self) -> list[int]:
        """The pods that get new requests."""
        return [int(state.pod.name.removeprefix("pod-")) for state in self.fleet.in_use()]

    def probed(self, number: int, *, good: bool | None) -> None:
        self.outliers.probed(state_of(self.fleet, number), good=good)


@pytest.mark.parametrize(
    "failure",
    [
        FAILED,
        Answer(503, details="via_upstream"),
        Answer(500),
        REFUSED,
        Answer(503, details="upstream_reset_before_response_started{connection_termination}"),
    ],
)
def test_a_pod_that_fails_in_a_row_gets_no_new_requests(failure: Answer) -> None:
    bench = Bench()

    for _ in range(3):
        bench.answer(2, failure)

    assert bench.health(2) is EJECTED
    assert bench.used == [1, 3, 4]
    assert bench.fleet.serving("base").pods == bench.fleet.in_use()


@pytest.mark.parametrize(
    "answer",
    [
        NOT_FOUND,
        Answer(429, details="via_upstream"),
        Answer(499, details="via_upstream"),
        Answer(501, details="via_upstream"),
        Answer(413, details="request_payload_too_large"),
        Answer(503, details="upstream_reset_before_response_started{overflow}"),
        Answer(503, details="no_healthy_upstream"),
        Answer(504, details="response_timeout"),
    ],
)
def test_what_is_not_the_pods_fault_is_no_evidence(answer: Answer) -> None:
    bench = Bench()

    for _ in range(20):
        bench.answer(2, answer)

    assert bench.health(2) is HEALTHY


def test_a_good_answer_between_failures_keeps_a_pod() -> None:
    bench = Bench(rules=HealthRules(failure_share=1.0))

    for _ in range(20):
        bench.fail(2, 2)
        bench.answer(2, GOOD)

    assert bench.health(2) is HEALTHY


def test_a_pod_that_fails_most_of_its_requests_is_ejected() -> None:
    bench = Bench()

    for _ in range(6):
        bench.fail(2, 2)
        bench.answer(2, GOOD)

    assert bench.health(2) is EJECTED


def test_one_failure_before_the_ejection_a_probe_decides() -> None:
    bench = Bench()

    bench.fail(2, 2)
    assert bench.health(2) is SUSPECT
    assert bench.used == [1, 3, 4]
    bench.tick()
    assert bench.probes == [state_of(bench.fleet, 2)]

    bench.probed(2, good=False)
    assert bench.health(2) is EJECTED


def test_a_suspect_that_answers_its_probe_is_healthy() -> None:
    bench = Bench()

    bench.fail(2, 2)
    bench.tick()
    bench.probed(2, good=True)

    assert bench.health(2) is HEALTHY
    assert bench.used == [1, 2, 3, 4]


def test_if_a_probe_says_nothing_the_next_request_is_the_probe() -> None:
    bench = Bench()
    request = bench.send(2)
    bench.tick(1.1)
    assert bench.health(2) is SUSPECT

    bench.probed(2, good=None)
    assert bench.health(2) is EJECTED
    bench.tick(1.0)
    bench.probed(2, good=None)

    assert bench.health(2) is TRYING
    request.release()


def test_an_ejected_pod_is_probed_with_backoff() -> None:
    bench = Bench(rules=HealthRules(min_ejection_seconds=1, max_ejection_seconds=4))
    bench.fail(2)
    waits = []
    for _ in range(4):
        before, ejected_at = len(bench.probes), bench.seconds
        while len(bench.probes) == before:
            bench.tick(0.05)
        waits.append(bench.seconds - ejected_at)
        bench.tick(10)
        assert len(bench.probes) == before + 1, "one probe at a time"
        bench.probed(2, good=False)

    assert 0.7 < waits[0] <= 1.1
    assert 1.4 < waits[1] <= 2.1
    assert 2.9 < waits[2] <= 4.1
    assert 2.9 < waits[3] <= 4.1


def test_it_comes_back_slowly() -> None:
    bench = Bench()
    bench.fail(2)
    bench.tick(1.0)
    bench.probed(2, good=True)
    assert bench.health(2) is TRYING
    assert 2 in bench.used

    first = bench.send(2)
    assert 2 not in bench.used
    first.answered(GOOD)
    assert 2 in bench.used
    second, third = bench.send(2), bench.send(2)
    assert 2 not in bench.used
    for request in (second, third):
        request.answered(GOOD)
    for _ in range(2):
        bench.answer(2, GOOD)

    assert bench.health(2) is HEALTHY
    assert not bench.outliers.unwell


def test_one_failure_while_it_is_tried_ejects_it_again() -> None:
    bench = Bench()
    bench.fail(2)
    bench.tick(1.0)
    bench.probed(2, good=True)

    bench.answer(2, FAILED)

    assert bench.health(2) is EJECTED


def test_a_tried_pod_whose_client_leaves_may_get_the_next_request() -> None:
    bench = Bench()
    bench.fail(2)
    bench.tick(1.0)
    bench.probed(2, good=True)

    bench.send(2).release()

    assert bench.health(2) is TRYING
    assert 2 in bench.used


def test_a_tried_pod_that_answers_late_may_get_the_next_request() -> None:
    bench = Bench()
    bench.fail(2)
    bench.tick(1.0)
    bench.probed(2, good=True)

    bench.answer(2, GOOD, after=5.0)

    assert bench.health(2) is TRYING
    assert 2 in bench.used


def test_a_request_that_was_lost_before_does_not_keep_a_pod_from_being_tried() -> None:
    bench = Bench()
    lost = [bench.send(2), bench.fleet.ledger.reserve(state_of(bench.fleet, 2), None, None)]
    bench.fail(2)
    bench.tick(1.0)

    bench.probed(2, good=True)
    assert 2 in bench.used
    for _ in range(5):
        bench.answer(2, GOOD)

    assert bench.health(2) is HEALTHY
    for request in lost:
        request.release()
    assert 2 in bench.used


def test_a_tried_pod_that_no_client_asks_is_probed_until_it_is_healthy() -> None:
    bench = Bench()
    bench.fail(2)
    bench.tick(1.0)
    for _ in range(6):
        bench.tick(0.5)
        bench.probed(2, good=True)

    assert len(bench.probes) == 6
    assert bench.health(2) is HEALTHY


def test_a_tried_pod_that_a_client_asks_is_not_probed() -> None:
    bench = Bench()
    bench.fail(2)
    bench.tick(1.0)
    bench.probed(2, good=True)

    request = bench.send(2)
    bench.tick(0.5)

    assert len(bench.probes) == 1
    request.release()


def test_a_probe_that_fails_while_a_pod_is_tried_ejects_it_again() -> None:
    bench = Bench()
    bench.fail(2)
    bench.tick(1.0)
    bench.probed(2, good=True)
    bench.tick(0.5)

    bench.probed(2, good=False)

    assert bench.health(2) is EJECTED


def test_a_tried_pod_whose_probe_says_nothing_waits_for_a_client() -> None:
    bench = Bench()
    bench.fail(2)
    bench.tick(1.0)
    for _ in range(3):
        bench.probed(2, good=None)
        bench.tick(10.0)

    assert bench.health(2) is TRYING
    assert len(bench.probes) == 2


def test_without_probes_the_next_request_is_the_probe() -> None:
    bench = Bench(probe=False)
    bench.fail(2)

    bench.tick(1.1)

    assert bench.health(2) is TRYING
    assert 2 in bench.used


class TestTheShare:
    def test_at_most_half_are_ejected(self) -> None:
        bench = Bench(4)

        for number in (1, 2, 3, 4):
            bench.fail(number)

        assert [bench.health(number) for number in (1, 2, 3, 4)].count(EJECTED) == 2
        assert bench.used == [3, 4]

    def test_those_of_one_base_model_leave_room_for_those_of_another(self) -> None:
        bench = Bench(8)
        for number in (5, 6, 7, 8):
            bench.fleet.put_models(state_of(bench.fleet, number), [ServedModel("other")])

        for number in (5, 6, 7, 8, 1):
            bench.fail(number)

        assert [bench.health(number) for number in (5, 6, 7, 8)].count(EJECTED) == 2
        assert bench.health(1) is EJECTED
        assert bench.used == [2, 3, 4, 7, 8]

    def test_failed_requests_weigh_more_than_failed_scrapes(self) -> None:
        bench = Bench(4)
        for number in (1, 2):
            for _ in range(3):
                bench.seconds += 1.0
                bench.fleet.put_scrape_failure(
                    state_of(bench.fleet, number), bench.seconds, unreachable=True
                )
        assert bench.used == [3, 4]

        bench.fail(3)

        assert 3 not in bench.used
        assert len(bench.used) == 2

    def test_one_of_two_may_always_be(self) -> None:
        bench = Bench(2, HealthRules(max_ejected_share=0.1))

        bench.fail(1)

        assert bench.used == [2]

    def test_a_share_of_0_ejects_nobody(self) -> None:
        bench = Bench(4, HealthRules(max_ejected_share=0.0))

        bench.fail(1, 20)

        assert bench.used == [1, 2, 3, 4]

    def test_if_nobody_is_well_all_are_used(self) -> None:
        bench = Bench(2, HealthRules(max_ejected_share=1.0))

        bench.fail(1)
        bench.fail(2)

        assert bench.used == [1, 2]

    def test_a_model_that_only_an_ejected_pod_serves_is_served_by_it(self) -> None:
        bench = Bench(4)
        bench.fleet.upsert(make_pod(9, models=("rare",)))

        bench.fail(9)

        assert 9 not in bench.used
        assert [state.pod.name for state in bench.fleet.serving("rare").pods] == ["pod-9"]


class TestSilence:
    def test_a_pod_that_hangs_is_suspect_and_its_probe_decides(self) -> None:
        bench = Bench()
        request = bench.send(2)

        bench.tick(0.9)
        assert bench.health(2) is HEALTHY
        bench.tick(0.2)
        assert bench.health(2) is SUSPECT
        assert bench.used == [1, 3, 4]
        bench.probed(2, good=False)

        assert bench.health(2) is EJECTED
        request.release()

    def test_the_silence_of_a_pod_that_several_wait_for_says_more(self) -> None:
        bench = Bench()
        requests = [bench.send(2) for _ in range(4)]

        bench.tick(0.35)
        assert bench.health(2) is HEALTHY
        bench.tick(0.1)
        assert bench.health(2) is SUSPECT

        for request in requests:
            request.release()

    def test_a_pod_that_answers_others_is_not_silent(self) -> None:
        bench = Bench()
        request = bench.send(2)

        for _ in range(100):
            bench.answer(2, GOOD, after=0.5)
            bench.tick(0.1)

        assert bench.health(2) is HEALTHY
        request.release()

    def test_where_first_bytes_take_long_silence_is_usual(self) -> None:
        bench = Bench()
        for _ in range(50):
            bench.answer(1, GOOD, after=5.0)
        request = bench.send(2)
        bench.send(2).release()

        bench.tick(20.0)

        assert bench.health(2) is HEALTHY
        request.release()

    def test_answers_that_are_not_streamed_have_a_history_of_their_own(self) -> None:
        """Their first byte comes when the whole answer is ready."""
        bench = Bench()
        for _ in range(50):
            bench.answer(1, GOOD, after=10.0)
        request = bench.send(2, streamed=True)
        request.answered(GOOD)
        request.release()

        request = bench.send(2, streamed=True)
        bench.tick(5.0)

        assert bench.health(2) is SUSPECT
        request.release()

    def test_an_engine_that_makes_progress_is_alive(self) -> None:
        bench = Bench()
        request = bench.send(2)

        for number in range(20):
            bench.tick(0.9)
            metrics = replace(make_metrics(), kv_cache_usage=number / 100)
            bench.fleet.put_metrics(state_of(bench.fleet, 2), metrics)

        assert bench.health(2) is HEALTHY
        request.release()

    def test_an_engine_whose_numbers_stand_still_is_silent(self) -> None:
        bench = Bench()
        request = bench.send(2)

        for number in range(5):
            bench.tick(0.9)
            metrics = make_metrics()
            assert metrics.lora is not None
            lora = replace(metrics.lora, updated_at=1.7e9 + number)
            metrics = replace(metrics, waiting=float(number), lora=lora)
            bench.fleet.put_metrics(state_of(bench.fleet, 2), metrics)

        assert bench.health(2) is SUSPECT
        request.release()

    def test_clients_that_give_up_waiting_are_evidence(self) -> None:
        bench = Bench(probe=False)

        for _ in range(3):
            request = bench.send(2)
            bench.seconds += 2.0
            request.release()

        assert bench.health(2) is EJECTED

    def test_clients_that_leave_soon_are_not(self) -> None:
        bench = Bench()

        for _ in range(20):
            request = bench.send(2)
            bench.seconds += 0.5
            request.release()
            bench.tick()

        assert bench.health(2) is HEALTHY

    def test_what_is_usual_for_a_small_model_is_not_for_a_large_one(self) -> None:
        bench = Bench(4)
        for number in (3, 4):
            bench.fleet.put_models(state_of(bench.fleet, number), [ServedModel("large")])
        for _ in range(20):
            bench.answer(1, GOOD, after=0.2)
            bench.answer(3, GOOD, after=20.0)
        for _ in range(200):
            bench.answer(1, GOOD, after=0.2)
        for _ in range(10):
            bench.answer(3, GOOD, after=25.0)

        assert bench.health(3) is HEALTHY
        assert bench.outliers.probe_timeout(state_of(bench.fleet, 3)) > 20.0
        assert bench.outliers.probe_timeout(state_of(bench.fleet, 1)) < 10.0

    def test_many_slow_first_bytes_make_it_suspect(self) -> None:
        bench = Bench()
        for _ in range(10):
            assert bench.health(2) is HEALTHY
            for number in (1, 3, 4) * 7:
                bench.answer(number, GOOD)
            bench.answer(2, GOOD, after=2.0)

        assert bench.health(2) is SUSPECT

    def test_a_gateway_that_sends_no_response_headers_is_no_evidence(self) -> None:
        bench = Bench()
        bench.outliers.answers_seen = False
        request = bench.send(2)

        bench.tick(1000.0)
        request.release()

        assert bench.health(2) is HEALTHY


class TestRequestsThatNameNoModel:
    def send(self, bench: Bench) -> Reservation:
        return bench.fleet.ledger.reserve(state_of(bench.fleet, 2), None, path=None)

    def test_a_slow_upload_does_not_make_a_pod_suspect(self) -> None:
        """Its body may still arrive: the pod cannot answer yet."""
        bench = Bench()
        upload = self.send(bench)

        bench.tick(600.0)
        upload.release()

        assert bench.health(2) is HEALTHY

    def test_a_path_that_fails_on_every_pod_ejects_none(self) -> None:
        bench = Bench()

        for _ in range(20):
            request = self.send(bench)
            request.answered(FAILED)
            request.release()

        assert bench.health(2) is HEALTHY

    def test_a_pod_that_they_cannot_reach_is_ejected(self) -> None:
        bench = Bench()

        for _ in range(3):
            request = self.send(bench)
            request.answered(REFUSED)
            request.release()

        assert bench.health(2) is EJECTED

    def test_they_count_for_a_pod_that_is_tried(self) -> None:
        bench = Bench()
        bench.fail(2)
        bench.tick(1.0)
        bench.probed(2, good=True)

        request = self.send(bench)
        assert 2 not in bench.used
        request.release()

        assert 2 in bench.used


class TestScrapes:
    def lose(self, bench: Bench, times: int) -> None:
        for _ in range(times):
            bench.seconds += 1.0
            bench.fleet.put_scrape_failure(
                state_of(bench.fleet, 2), bench.seconds, unreachable=True
            )

    def test_a_pod_that_no_scrape_can_reach_is_ejected(self) -> None:
        bench = Bench()

        self.lose(bench, 2)
        assert bench.health(2) is HEALTHY
        self.lose(bench, 1)

        assert bench.health(2) is EJECTED

    def test_and_a_good_scrape_brings_it_back(self) -> None:
        bench = Bench()
        bench.fleet.put_metrics(state_of(bench.fleet, 2), make_metrics())
        self.lose(bench, 3)

        bench.fleet.put_metrics(state_of(bench.fleet, 2), make_metrics())

        assert bench.health(2) is TRYING
        assert 2 in bench.used

    def test_a_further_pod_that_none_could_reach_is_healthy_with_the_next_one(self) -> None:
        bench = Bench(2)
        self.lose(bench, 3)
        for _ in range(3):
            bench.seconds += 1.0
            bench.fleet.put_scrape_failure(
                state_of(bench.fleet, 1), bench.seconds, unreachable=True
            )
        assert bench.health(1) is SUSPECT

        bench.fleet.put_metrics(state_of(bench.fleet, 1), make_metrics())

        assert bench.health(1) is HEALTHY

    def test_a_pod_that_starts_after_the_router_is_healthy_with_its_first_one(self) -> None:
        bench = Bench()
        bench.fleet.update([make_pod(5)])
        late = state_of(bench.fleet, 5)
        for _ in range(3):
            bench.seconds += 1.0
            bench.fleet.put_scrape_failure(late, bench.seconds, unreachable=True)
        assert late.health.state is EJECTED

        bench.fleet.put_metrics(late, make_metrics())

        assert late.health.state is HEALTHY

    def test_a_pod_that_answers_requests_is_well_whatever_its_metrics_port_does(self) -> None:
        bench = Bench()

        for _ in range(10):
            self.lose(bench, 1)
            bench.answer(2, GOOD)

        assert bench.health(2) is HEALTHY

    def test_a_page_that_cannot_be_used_is_no_evidence(self) -> None:
        bench = Bench()

        for _ in range(10):
            bench.seconds += 1.0
            bench.fleet.put_scrape_failure(state_of(bench.fleet, 2), bench.seconds)

        assert bench.health(2) is HEALTHY

    def test_a_good_scrape_after_failed_ones_hastens_the_probe(self) -> None:
        bench = Bench(rules=HealthRules(min_ejection_seconds=50))
        bench.fail(2)
        self.lose(bench, 1)

        bench.fleet.put_metrics(state_of(bench.fleet, 2), make_metrics())
        bench.tick()

        assert bench.probes == [state_of(bench.fleet, 2)]


class TestWhereItRan:
    def test_a_request_counts_on_the_pod_that_answers_it(self) -> None:
        bench = Bench()
        request = bench.fleet.ledger.reserve(state_of(bench.fleet, 1), "sql-lora")

        request.answered(replace_served(GOOD, "10.0.0.3:8000"))

        assert [state.in_flight for state in bench.fleet] == [0, 0, 1, 0]
        assert state_of(bench.fleet, 3).in_flight_adapters == {"sql-lora": 1}
        assert bench.fleet.ledger.moved == 1
        request.release()
        assert [state.in_flight for state in bench.fleet] == [0, 0, 0, 0]
        assert bench.fleet.ledger.total == 0

    def test_and_the_pod_that_did_not_get_it_is_blamed(self) -> None:
        bench = Bench()

        for _ in range(3):
            bench.answer(1, replace_served(GOOD, "10.0.0.3:8000"))

        assert bench.health(1) is EJECTED
        assert bench.health(3) is HEALTHY

    def test_an_endpoint_that_is_no_pod_changes_nothing(self) -> None:
        bench = Bench()

        bench.answer(1, replace_served(GOOD, "192.0.2.1:80"))

        assert bench.fleet.ledger.moved == 0
        assert bench.health(1) is HEALTHY


class TestAPodThatLeaves:
    def test_it_is_forgotten(self) -> None:
        bench = Bench()
        bench.fail(2)

        bench.fleet.remove("pod-2")

        assert not bench.outliers.unwell
        assert bench.used == [1, 3, 4]

    def test_another_server_under_its_name_is_healthy(self) -> None:
        bench = Bench()
        bench.fail(2)

        bench.fleet.upsert(make_pod(2, uid="another", models=("base",)))

        assert bench.health(2) is HEALTHY
        assert 2 in bench.used

    def test_requests_that_are_still_open_there_end_as_usual(self) -> None:
        bench = Bench()
        request = bench.send(2)
        bench.fleet.remove("pod-2")

        request.answered(FAILED)
        request.release()

        assert bench.fleet.ledger.total == 0


def replace_served(answer: Answer, endpoint: str) -> Answer:
    return Answer(answer.status, endpoint, answer.details)
