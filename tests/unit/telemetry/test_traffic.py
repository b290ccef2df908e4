"""Requests by base model, pod and adapter, in a bounded number of rows."""

import random
import sys

import pytest

from lora_router.fleet.adapter_beliefs import AWAY
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.routing.looks import Looks
from lora_router.telemetry.decisions import Decision, DecisionLog
from lora_router.telemetry.frequent import Frequent
from lora_router.telemetry.traffic import MAX_BASE_MODELS, SETTLE_SECONDS, Traffic
from lora_router.telemetry.traffic_rows import ModelTraffic, as_label

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def pod_named(name: str, models: tuple[str, ...] | None = None) -> Pod:
    return Pod(name, "10.0.0.1:8000", "http://10.0.0.1/", "http://10.0.0.1/", models=models)


class Site:
    """Traffic that follows a log, and requests."""

    def __init__(self, most: int = 3, fleet: Fleet | None = None) -> None:
        self.now = 100.0
        self.log = DecisionLog(10, now=lambda: self.now, wall=lambda: 1100.0)
        self.traffic = Traffic(self.log, most, fleet)

    def request(
        self,
        adapter: str = "",
        *,
        pod: str = "pod-0",
        base_model: str = "base",
        held: float = 0.0,
        first_byte: float | None = 0.25,
        takes: float = 1.0,
        place: str = "running",
        **fields: object,
    ) -> Decision:
        decision = self.log.begin("r", "/v1/completions")
        decision.outcome, decision.pod, decision.base_model = "routed", pod, base_model
        decision.adapter, decision.place = adapter, place if adapter else ""
        if held:
            decision.held_for, decision.held_seconds = "no-slot", held
        for name, value in fields.items():
            setattr(decision, name, value)
        decision.decided_at = self.now
        self.log.decided(decision)
        decision.unanswered = first_byte is None
        if first_byte is not None:
            decision.answered_at = decision.arrived_at + first_byte
            decision.status = decision.status or 200
        self.now += takes
        self.log.ended(decision)
        return decision

    @property
    def names(self) -> set[str]:
        return set(self.traffic.adapters)


def test_a_request_counts_for_its_base_model_its_pod_and_its_adapter() -> None:
    site = Site()

    site.request("a", first_byte=0.25, takes=2.0)

    for row in (
        site.traffic.models["base"],
        site.traffic.pods["pod-0"],
        site.traffic.adapters["a"],
    ):
        assert (row.first_byte.count, row.first_byte.seconds) == (1, 0.25)
        assert (row.duration.count, row.duration.seconds) == (1, 2.0)
    assert site.traffic.adapters["a"].requests == 1
    assert site.traffic.adapters["a"].found["running"] == 1


def test_a_request_for_a_base_model_counts_for_no_adapter() -> None:
    site = Site()

    site.request()

    assert site.traffic.models["base"].duration.count == 1
    assert [row.requests for row in site.traffic.adapters.values()] == [0]


def test_a_cold_placement_that_spills_and_replicates_counts_as_both() -> None:
    site = Site()

    site.request("a", place="nowhere", spilled=True, replicated=True)

    row, model = site.traffic.adapters["a"], site.traffic.models["base"]
    assert row.found == {"running": 0, "slot": 0, "host-memory": 0, "nowhere": 1}
    assert (row.spilled, row.replicated) == (1, 1)
    assert (model.spilled, model.replicated) == (1, 1)


def test_hold_time_counts_when_the_pod_is_picked() -> None:
    site = Site()

    site.request("a", held=27.0)
    site.request(held=3.0)

    assert site.traffic.adapters["a"].held == 1
    assert site.traffic.adapters["a"].hold.seconds == 27.0
    assert site.traffic.models["base"].hold.seconds == 30.0


def test_a_request_that_was_held_and_got_no_pod_counts_for_the_adapter_that_it_asked_for() -> None:
    site = Site()
    fleet = Fleet()
    fleet.replace([pod_named("pod-0", models=("base", "a"))])
    [pod] = fleet
    looks = Looks([(pod, 1, 0, AWAY)], "a")

    site.request(
        base_model="", pod="", first_byte=None, held=60.0, outcome="refused", held_looks=looks
    )

    row = site.traffic.adapters["a"]
    assert (row.requests, row.held, row.duration.count) == (1, 1, 0)
    assert site.traffic.models["base"].hold.count == 1


@pytest.mark.parametrize("held", [0.0, 27.0])
def test_a_request_that_got_no_pod_counts_for_its_adapter_and_was_found_nowhere(
    held: float, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site()

    site.request("a", pod="", first_byte=None, held=held, outcome="refused", place="")

    row = site.traffic.adapters["a"]
    assert (row.requests, row.held, row.hold.seconds) == (1, int(held > 0), held)
    assert set(row.found.values()) == {0}
    assert site.traffic.models.get("base", ModelTraffic()).hold.seconds == held
    assert not caplog.messages


def test_a_failure_counts_for_the_pod_and_its_base_model() -> None:
    site = Site()

    site.request("a", status=503)
    site.request("a", first_byte=None)
    site.request("a", status=404)

    assert list(site.traffic.pods["pod-0"].failed) == ["base"]
    for row in (
        site.traffic.models["base"].failed,
        site.traffic.pods["pod-0"].failed["base"],
        site.traffic.adapters["a"].failed,
    ):
        assert (row.status, row.unanswered, row.total) == (1, 1, 2)


def test_the_failures_of_a_pod_that_left_stay_with_its_base_model() -> None:
    fleet = Fleet()
    site = Site(fleet=fleet)
    fleet.replace([pod_named("pod-0", models=("base",)), pod_named("pod-1", models=("base",))])
    site.request(status=503)

    fleet.replace([pod_named("pod-1", models=("base",))])
    site.request(status=503)  # Envoy answers for the pod a moment after it left.

    assert site.traffic.models["base"].failed.status == 2
    assert site.traffic.pods["pod-1"].failed["base"].total == 0


def test_tokens_count_if_they_are_known() -> None:
    site = Site()

    site.request("a", prompt_tokens=10, completion_tokens=5)
    site.request(prompt_tokens=1, completion_tokens=None)

    model = site.traffic.models["base"]
    assert (model.prompt_tokens, model.completion_tokens) == (11, 5)
    assert site.traffic.adapters["a"].completion_tokens == 5


def test_adapters_beyond_the_number_share_a_row() -> None:
    site = Site(most=2)

    for name in "abcd":
        site.request(name)

    assert site.names == {"a", "b", "other"}
    assert site.traffic.adapters["other"].duration.count == 2


def test_an_adapter_that_becomes_busy_takes_the_row_of_the_idlest() -> None:
    site = Site(most=2)
    for _ in range(30):
        site.request("steady", takes=0.1)
    site.request("idle")

    while "rising" not in site.names:
        assert site.now < 300.0
        site.request("rising")
        site.request("steady", takes=0.0)

    assert site.names == {"steady", "rising", "other"}
    # What was counted before stays in the shared row.
    assert site.traffic.adapters["rising"].requests < 10 < site.traffic.adapters["other"].requests
    assert site.traffic.adapters["steady"].requests > 30


def test_rows_do_not_change_hands_by_chance() -> None:
    rng = random.Random(5)
    site = Site(most=10)
    for name in range(10):
        site.request(f"a{name}")
    first = site.names

    for _ in range(5000):
        site.request(f"a{rng.randrange(20)}", takes=SETTLE_SECONDS / 100)

    assert site.names == first


def test_a_row_that_is_given_up_does_not_move_to_other() -> None:
    site = Site(most=1)
    for _ in range(5):
        site.request("old")
    site.now += 10 * SETTLE_SECONDS
    before = site.traffic.adapters["other"].requests

    sent = 0
    while "new" not in site.names:
        site.request("new")
        sent += 1

    assert site.traffic.adapters["other"].requests - before in (sent - 1, sent)


def test_without_rows_for_adapters_all_share_one() -> None:
    site = Site(most=0)

    site.request("a")

    assert site.names == {"other"}
    assert site.traffic.adapters["other"].requests == 1


def test_base_models_are_bounded() -> None:
    site = Site()

    for number in range(2 * MAX_BASE_MODELS):
        site.request(base_model=f"base-{number}", status=500)

    assert len(site.traffic.models) == MAX_BASE_MODELS + 1
    assert site.traffic.models["other"].duration.count == MAX_BASE_MODELS
    assert len(site.traffic.pods["pod-0"].failed) == MAX_BASE_MODELS + 1


def test_a_pod_that_leaves_loses_its_row_and_late_answers_do_not_bring_it_back() -> None:
    fleet = Fleet()
    fleet.replace([pod_named("pod-0"), pod_named("pod-1")])
    site = Site(fleet=fleet)
    site.request(pod="pod-0")
    site.request(pod="pod-1")

    fleet.replace([pod_named("pod-1")])
    site.request(pod="pod-0")

    assert set(site.traffic.pods) == {"pod-1"}


def test_the_rows_of_a_pod_and_its_base_models_exist_before_its_first_request() -> None:
    fleet = Fleet()
    site = Site(fleet=fleet)

    fleet.replace([pod_named("pod-0", models=("base", "adapter")), pod_named("pod-1")])

    assert set(site.traffic.pods) == {"pod-0"}
    [(base_model, failures)] = site.traffic.pods["pod-0"].failed.items()
    assert (base_model, failures.total) == ("base", 0)
    assert set(site.traffic.models) == {"base"}


def test_a_traced_request_is_an_exemplar() -> None:
    site = Site()
    site.traffic.traces = True

    site.request("a", trace_id=TRACE, held=0.5, first_byte=0.75, takes=2.0)

    row = site.traffic.adapters["a"]
    assert [*row.first_byte.exemplars.values()] == [(TRACE, 0.75, 1100.75)]
    assert [*row.duration.exemplars.values()] == [(TRACE, 2.0, 1102.0)]
    assert [*row.hold.exemplars.values()] == [(TRACE, 0.5, 1100.0)]


def test_without_tracing_there_are_no_exemplars() -> None:
    site = Site()

    site.request("a", trace_id=TRACE)

    assert not site.traffic.adapters["a"].duration.exemplars


def test_what_a_client_sends_is_no_exemplar() -> None:
    site = Site()
    site.traffic.traces = True

    site.request("a", traceparent='00-chosen "by" a\nclient xxxxxxxxxx-b7ad6b7169203331-01')
    site.request("a", traceparent=TRACEPARENT)  # It has no span: it was not sampled.

    assert not site.traffic.adapters["a"].duration.exemplars
    assert not site.traffic.models["base"].first_byte.exemplars


def test_names_stay_distinct_as_labels() -> None:
    assert as_label("a\udc80") != as_label("a\udc81")
    as_label("a\udc80").encode()


def test_the_most_frequent_of_many_names_have_counters() -> None:
    rng = random.Random(4)
    names = [f"rare-{number}" for number in range(20_000)] + ["hot"] * 1000 + ["warm"] * 500
    rng.shuffle(names)
    frequent = Frequent(100)

    for name in names:
        frequent.count(name)

    assert {"hot", "warm"} <= set(frequent.counts)
    assert len(frequent.counts) <= 100


@pytest.mark.slow
def test_a_hundred_thousand_adapters_take_bounded_memory() -> None:
    site = Site(most=100)

    for number in range(100_000):
        site.request(f"adapter-{number}", takes=0.01)

    assert len(site.traffic.adapters) == 101
    assert len(site.traffic._watched.counts) <= 1000
    assert sum(row.requests for row in site.traffic.adapters.values()) == 100_000
    assert sys.getsizeof(site.traffic._watched._counts) < 100_000
