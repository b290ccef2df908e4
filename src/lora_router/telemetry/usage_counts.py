"""Counts the answers that the router reads for their numbers of tokens, by what they state."""

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


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
        answers = CounterMetricFamily(
            "lora_router_usage_answers",
            "Answers that may state how many tokens the request took (setting tokens), by what "
            "they state: usage is stated, missing, or encoded (the answer is compressed and was "
            "not read).",
            labels=["usage"],
        )
        answers.add_metric(["stated"], self.stated)
        answers.add_metric(["missing"], self.missing)
        answers.add_metric(["encoded"], self.encoded)
        return (answers,)
