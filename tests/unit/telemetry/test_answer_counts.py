"""Answers are counted by who gave them and by the class of their status."""

from lora_router.fleet.answer import Answer
from lora_router.telemetry.answer_counts import AnswerCounts


def counted(*answers: Answer) -> dict[tuple[str, str], float]:
    counts = AnswerCounts()
    for answer in answers:
        counts.answered(answer)
    (metric,) = counts.collect()
    return {
        (sample.labels["by"], sample.labels["status"]): sample.value for sample in metric.samples
    }


def test_the_usual_series_exist_from_the_start() -> None:
    usual = [(by, status) for by in ("pod", "envoy") for status in ("2xx", "4xx", "5xx")]

    assert counted() == dict.fromkeys(usual, 0)


def test_an_answer_counts_by_who_gave_it_and_its_class() -> None:
    counts = counted(
        Answer(200, "10.0.0.1:8000", "via_upstream"),
        Answer(404, "10.0.0.1:8000", "via_upstream"),
        Answer(503, "10.0.0.1:8000", "upstream_reset_before_response_started{x}"),
        Answer(101, "10.0.0.1:8000", "via_upstream"),
        Answer(200),
        Answer(0),
    )

    assert {labels: count for labels, count in counts.items() if count} == {
        ("pod", "2xx"): 1,
        ("pod", "4xx"): 1,
        ("envoy", "5xx"): 1,
        ("pod", "1xx"): 1,
        ("unknown", "2xx"): 1,
        ("unknown", "unknown"): 1,
    }
