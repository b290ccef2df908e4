"""How many requests a pod may have, as scrapes show that its tokens become too slow."""

from dataclasses import replace

from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.overload import Overload
from lora_router.routing.refusal import Refusal, Refused
from lora_router.routing.token_room import FEWEST, TokenRoom
from tests.fleet import make_fleet, make_metrics, state_of
from tests.unit.routing.router import Router

GOAL = 0.045
"""What is aimed at with 0.05."""


class Server:
    """A pod whose step takes some milliseconds, and more for each request that runs."""

    def __init__(self, step: float = 0.020, each: float = 0.0005) -> None:
        self.fleet = make_fleet(1)
        self.state = state_of(self.fleet, 1)
        self.room = TokenRoom(0.05)
        self.step, self.each = step, each
        self.now = self.tokens = 0.0

    def runs(self, requests: float, seconds: float = 60.0) -> float | None:
        """Let so many requests run, with a scrape each second; return how many it may have."""
        for _ in range(int(seconds)):
            self.now += 1.0
            if requests:
                self.tokens += requests / (self.step + self.each * requests)
            self.scraped(running=requests, generated_tokens=self.tokens)
        return self.room.most(self.state)

    def scraped(self, **metrics: object) -> None:
        page: PodMetrics = replace(make_metrics(scraped_at=self.now), **metrics)  # type: ignore[arg-type]
        self.fleet.put_metrics(self.state, page)
        self.room.scraped(self.state)


def test_a_pod_that_is_fast_enough_has_no_limit() -> None:
    assert Server().runs(40) is None


def test_a_pod_that_is_too_slow_gets_fewer_requests_until_it_is_fast_enough() -> None:
    server = Server()
    requests = 100.0
    for _ in range(10):
        requests = server.runs(requests) or requests
    assert requests * server.each + server.step <= GOAL * 1.01
    assert requests > 45


def test_a_pod_whose_requests_become_cheaper_may_have_more() -> None:
    server = Server()
    server.runs(60)
    server.each /= 2
    requests = 50.0
    for _ in range(10):
        requests = server.runs(requests) or requests
    assert requests > 90


def test_a_pod_that_fewer_requests_would_not_make_fast_enough_has_no_limit() -> None:
    server = Server(step=0.080)
    assert server.runs(60, 10) is not None
    assert server.runs(FEWEST, 120) is None
    assert server.runs(60) is None


def test_a_pod_without_requests_keeps_its_limit() -> None:
    server = Server()
    limit = server.runs(60)
    assert server.runs(0) == limit


def test_scrapes_without_tokens_or_of_another_process_say_nothing() -> None:
    server = Server()
    server.scraped(running=100.0, generated_tokens=None)
    server.scraped(running=None, generated_tokens=5.0)
    limit = server.runs(60)
    server.now += 1.0
    server.scraped(running=60.0, generated_tokens=0.0)
    assert server.room.most(server.state) == limit
    server.room.forget([server.state])
    assert server.room.most(server.state) is None


def test_requests_wait_while_all_pods_have_as_many_as_they_may() -> None:
    overload = Overload(max_seconds_per_token=0.05)
    algorithm = LeastRequest(AlgorithmOptions())
    router = Router(make_fleet(1), algorithm, overload=overload, max_hold_seconds=5.0)
    running = [router.routed("base") for _ in range(10)]
    state = state_of(router.fleet, 1)
    for second in range(10):  # 20 tokens a second of each request would be fast enough.
        metrics = make_metrics(scraped_at=float(second))
        router.fleet.put_metrics(
            state, replace(metrics, running=10.0, generated_tokens=180.0 * second)
        )
    router.held("base", "first")
    router.held("base", "second")
    running[0].reservation.release()
    running[1].reservation.release()
    assert router.late_names == ["first"]
    router.clock.advance(5.0)
    refused = router.late[-1][1]
    assert isinstance(refused, Refused)
    assert refused.refusal is Refusal.OVERLOADED


class PrefersTheFirst(LeastRequest):
    """Picks the pod with the lowest name."""

    name = "prefers-the-first"

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        return Pick(min(candidates, key=lambda each: each.pod.name), "first")


def test_a_pod_may_have_more_if_others_would_load_the_adapter_from_disk() -> None:
    overload = Overload(max_seconds_per_token=0.05)
    algorithm = PrefersTheFirst(AlgorithmOptions())
    router = Router(make_fleet(2, adapters=["a"]), algorithm, overload=overload)
    first, other = state_of(router.fleet, 1), state_of(router.fleet, 2)
    router.fleet.put_metrics(other, make_metrics())
    for second in range(10):
        metrics = make_metrics(["a"], scraped_at=float(second))
        router.fleet.put_metrics(
            first, replace(metrics, running=10.0, generated_tokens=180.0 * second)
        )
    # Ten requests run there that others sent, and it may have eight: 24 if they save loads.
    pods = [router.routed("a").reservation.state for _ in range(16)]
    assert pods == [first] * 15 + [other]
    assert router.routed("base").reservation.state is other
