"""Recorded requests as traffic: adapters for sessions, another pace, a part of the recording."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from lora_router.simulator.no_value import has_value
from lora_router.simulator.recorded.recording import RecordedRequest, Recording, TraceError
from lora_router.simulator.recorded.session_adapters import SessionAdapters
from lora_router.simulator.trace import BASE_MODEL
from lora_router.simulator.traffic import replayed


def recording(
    times: list[float], sessions: Sequence[int | None] | None = None, *, model: str = ""
) -> Recording:
    return Recording(
        Path("requests.jsonl"),
        tuple(
            RecordedRequest(at, 100, 10, model, session, blocks=(1, 2), block_tokens=50)
            for at, session in zip(times, sessions or [None] * len(times), strict=True)
        ),
        names_models=bool(model),
        format="mooncake",
    )


def test_all_requests_of_a_session_have_its_adapter() -> None:
    sessions = [number % 50 for number in range(400)]
    traffic = replayed(recording([1.0 * at for at in range(400)], sessions), SessionAdapters(8))
    models = [arrival.model for arrival in traffic.requests(1)]

    assert all(len({*models[first::50]}) == 1 for first in range(50))
    assert set(models) <= set(traffic.adapters)
    assert models == [arrival.model for arrival in traffic.requests(1)]
    assert models != [arrival.model for arrival in traffic.requests(2)]


@pytest.mark.slow
def test_adapters_are_drawn_by_popularity_and_some_sessions_have_none() -> None:
    traffic = replayed(
        recording([0.01 * at for at in range(20_000)]),
        SessionAdapters(10, zipf=1.0, base_share=0.3),
    )
    models = Counter(arrival.model for arrival in traffic.requests(1))

    assert models.pop(BASE_MODEL) == pytest.approx(6_000, rel=0.05)
    ordered = [count for _, count in models.most_common()]
    assert len(ordered) == 10
    assert ordered[0] / ordered[-1] == pytest.approx(10, rel=0.3)


def test_another_rate_keeps_the_order_and_the_bursts() -> None:
    times = [0.0, 1.0, 1.5, 10.0]
    traffic = replayed(recording(times), SessionAdapters(1), rate=4.0)
    at = [arrival.at for arrival in traffic.requests(1)]

    assert traffic.rate == pytest.approx(4.0)
    assert traffic.seconds == pytest.approx(1.0)
    assert at == pytest.approx([time / 10 for time in times])
    assert [after - before for before, after in pairwise(at)] == pytest.approx([0.1, 0.05, 0.85])


def test_the_rate_is_that_of_the_requests_that_are_replayed() -> None:
    # Ten times as many requests a second after the first minute.
    times = [1.0 * at for at in range(61)] + [60 + 0.1 * at for at in range(1, 601)]
    whole = replayed(recording(times), SessionAdapters(1))
    part = replayed(recording(times), SessionAdapters(1), seconds=60.5)
    faster = replayed(recording(times), SessionAdapters(1), rate=2 * whole.rate, seconds=30.25)

    assert whole.rate == pytest.approx(661 / 120)
    assert part.rate == pytest.approx(65 / 60.4, rel=0.02)
    assert faster.rate == pytest.approx(2 * part.rate)


@pytest.mark.parametrize("times", [[0.0], [0.0, 0.0, 0.0]])
def test_requests_of_one_moment_have_no_rate(times: list[float]) -> None:
    assert not has_value(replayed(recording(times), SessionAdapters(1)).rate)


def test_blocks_and_lengths_are_those_of_the_recording() -> None:
    (arrival,) = replayed(recording([0.0]), SessionAdapters(1), seconds=5.0).requests(1)
    assert arrival == (0.0, "adapter-000", 100, 10, (1, 2), 50)


def test_a_part_of_a_recording_can_be_replayed() -> None:
    traffic = replayed(recording([0.0, 1.0, 2.0, 30.0]), SessionAdapters(1), seconds=2.0)
    assert [arrival.at for arrival in traffic.requests(1)] == [0.0, 1.0]


def test_models_that_the_recording_names_are_kept() -> None:
    traffic = replayed(recording([0.0, 1.0], model="sql"), SessionAdapters(3))
    assert [arrival.model for arrival in traffic.requests(1)] == ["sql", "sql"]
    assert traffic.adapters == ["sql"]


def test_what_cannot_be_replayed_says_why() -> None:
    with pytest.raises(TraceError, match=r"requests.jsonl: all requests have the same time"):
        replayed(recording([0.0, 0.0]), SessionAdapters(1), rate=3.0)
    with pytest.raises(TraceError, match="lasts 2,000,000 s, and may last at most 1,000,000 s"):
        replayed(recording([0.0, 2e6]), SessionAdapters(1))
