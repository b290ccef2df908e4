"""Counts the answers that may state numbers of tokens, by whether they do."""

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lora_router.telemetry.catalog import CATALOG


class UsageCounts(Collector):
    """Plain numbers, which become a metric when a page is read."""

    def __init__(self) -> None:
        self.stated = 0
        """Answers that state how many tokens the request took."""
        self.missing = 0
        """Answers that were read, to their end or not, and do not state it."""
        self.encoded = 0
        """Answers that were not read, because they are compressed."""

    def collect(self) -> Iterable[Metric]:
        """Return the metric as it is now."""
        answers = CATALOG.counter("lora_router_usage_answers_total")
        answers.add_metric(["stated"], self.stated)
        answers.add_metric(["missing"], self.missing)
        answers.add_metric(["encoded"], self.encoded)
        return (answers,)
