"""Counts the answers to routed requests, by who gave them and by the class of their status."""

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lora_router.fleet.answer import FROM_THE_POD, Answer
from lora_router.telemetry.catalog import CATALOG

_CLASSES = ("unknown", "1xx", "2xx", "3xx", "4xx", "5xx")
_BY_POD, _BY_ENVOY, _BY_UNKNOWN = "pod", "envoy", "unknown"


class AnswerCounts(Collector):
    """Plain numbers, which become a metric when a page is read, as in ``decisions``."""

    def __init__(self) -> None:
        self._counts = {by: [0] * len(_CLASSES) for by in (_BY_POD, _BY_ENVOY, _BY_UNKNOWN)}
        self._by_pod = self._counts[_BY_POD]

    def answered(self, answer: Answer) -> None:
        """Count an answer. Its status is below 600."""
        details = answer.details
        if details == FROM_THE_POD:
            self._by_pod[answer.status // 100] += 1
        else:
            self._counts[_BY_ENVOY if details else _BY_UNKNOWN][answer.status // 100] += 1

    def collect(self) -> Iterable[Metric]:
        """Return the metric as it is now."""
        answers = CATALOG.counter("lora_router_answers_total")
        for by, counts in self._counts.items():
            for name, count in zip(_CLASSES, counts, strict=True):
                # The usual series exist from the start, so that a query sees their increase.
                if count or (by != _BY_UNKNOWN and name in ("2xx", "4xx", "5xx")):
                    answers.add_metric([by, name], count)
        return (answers,)
