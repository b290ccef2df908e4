"""Decisions as records, and the log that keeps the last ones."""

import random

import pytest

from lora_router.telemetry.decisions import Decision, DecisionLog


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A log of few decisions, and what its followers were told."""

    def __init__(self, capacity: int = 3, **options: float) -> None:
        self.time = Time()
        self.log = DecisionLog(
            capacity, now=self.time, wall=lambda: 1000.0, rng=random.Random(1), **options
        )
        self.told: list[Decision] = []
        self.log.on_ended.append(self.told.append)

    def request(self, name: str = "r", *, takes: float = 0.1, status: int = 200) -> Decision:
        """Record a request that is answered after some seconds."""
        decision = self.log.begin(name, "/v1/completions")
        decision.outcome = "routed"
        decision.decided_at = self.time.now
        self.log.decided(decision)
        self.time.now += takes
        decision.answered_at, decision.status = self.time.now, status
        self.log.ended(decision)
        return decision


def names(log: DecisionLog) -> list[str]:
    return [decision.request_id for decision in log]


def test_the_last_decisions_are_kept_the_newest_first() -> None:
    site = Site(capacity=3)

    for name in "abcd":
        site.request(name)

    assert names(site.log) == ["d", "c", "b"]
    assert site.log.count == 4
    assert [decision.number for decision in site.log] == [4, 3, 2]


def test_of_ordinary_decisions_a_share_is_kept_and_of_abnormal_ones_all() -> None:
    site = Site(capacity=1000, share=0.1, slow_seconds=1.0)

    for _ in range(200):
        site.request("ordinary")
    for name, takes, status in (("slow", 1.5, 200), ("failed", 0.1, 503)):
        for _ in range(5):
            site.request(name, takes=takes, status=status)

    kept = names(site.log)
    assert 5 <= kept.count("ordinary") <= 40
    assert kept.count("slow") == kept.count("failed") == 5
    assert len(site.told) == 210, "followers see all"


@pytest.mark.parametrize(
    ("changes", "abnormal"),
    [
        ({}, False),
        ({"held_for": "no-slot"}, True),
        ({"outcome": "refused"}, True),
        ({"outcome": "cancelled"}, True),
        ({"retried_on": "pod-2"}, True),
        ({"status": 500}, True),
        ({"status": 404}, False),
        ({"answered_at": 103.0}, True),
    ],
)
def test_what_is_abnormal(changes: dict[str, object], abnormal: bool) -> None:
    site = Site(slow_seconds=2.0)
    decision = site.request()

    for name, value in changes.items():
        setattr(decision, name, value)

    assert site.log.is_abnormal(decision) is abnormal


def test_a_request_that_ended_without_an_answer_has_no_first_byte() -> None:
    site = Site()
    decision = site.log.begin("r", "/")
    decision.outcome = "routed"
    site.log.decided(decision)
    decision.unanswered = True

    site.log.ended(decision)

    assert (decision.failed, site.log.is_abnormal(decision)) == (False, True)
    assert (decision.first_byte_seconds, decision.pod_seconds) == (None, None)


def test_times_of_a_record_are_known_by_the_time_of_day() -> None:
    site = Site()

    assert site.log.wall(site.time.now) == 1000.0
    assert site.log.wall(site.time.now + 5) == 1005.0


def test_long_texts_are_cut() -> None:
    decision = Site().log.begin("i" * 10_000, "/" * 10_000)

    assert (len(decision.request_id), len(decision.path)) == (128, 256)


def test_a_follower_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()

    def follow(_decision: Decision) -> None:
        raise RuntimeError("full")

    site.log.on_ended.insert(0, follow)

    site.request()
    site.request()

    assert len(site.told) == 2
    [line] = caplog.records
    assert "failed to take in a decision" in line.getMessage()


def test_somebody_else_may_count_the_followers_that_fail() -> None:
    site = Site()
    failed: list[tuple[str, str]] = []
    site.log.on_failure = lambda name, error: failed.append((name, type(error).__name__))

    def leave(_decision: Decision) -> None:
        raise SystemExit

    site.log.on_ended.insert(0, leave)
    site.request()

    [(name, error)] = failed
    assert name.endswith("leave")
    assert error == "SystemExit"
