"""Metrics of the loader, read whenever the page is."""

from collections import Counter
from collections.abc import Iterable
from typing import get_args

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lora_router.adapters.calls import OUTCOMES, Action
from lora_router.adapters.loader import Loader
from lora_router.adapters.step_kinds import REASONS
from lora_router.telemetry.catalog import CATALOG

RESULTS = ("written", "conflict", "failed")
"""Results of writes of a status (``discovery.model_adapter_writer``). That module is not imported
here: it needs the client of Kubernetes, which most routers do not load."""


class LoaderMetrics(Collector):
    """The collector."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self.status_writes: Counter[str] | None = None
        """Writes of ModelAdapters' statuses by result. ``None``: this router follows none."""

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        loader = self._loader
        tally = loader.tally
        loads = CATALOG.gauge("lora_router_loads_adapters")
        loads.add_metric((), loader.loads)
        declared = CATALOG.gauge("lora_router_declared_adapters")
        if loader.loads:
            survey = loader.surveys.last
            for state in ("loaded", "missing", "unplaced"):
                declared.add_metric((state,), getattr(survey, state))
        calls = CATALOG.counter("lora_router_adapter_calls_total")
        for action in get_args(Action):
            for outcome in OUTCOMES:
                calls.add_metric((action, outcome), tally.calls[action, outcome])
        times = CATALOG.histograms("lora_router_adapter_load_seconds")
        times.add((), tally.load_times)
        failing = CATALOG.gauge("lora_router_failing_adapters")
        failing.add_metric((), len(loader.failures))
        reasons = Counter(pod.put_off for pod in loader.pods.values())
        put_off = CATALOG.gauge("lora_router_pods_put_off")
        for reason in REASONS:
            put_off.add_metric((reason,), reasons[reason])
        writes = CATALOG.counter("lora_router_model_adapter_status_writes_total")
        if self.status_writes is not None:
            for result in RESULTS:
                writes.add_metric((result,), self.status_writes[result])
        return loads, declared, calls, times, failing, put_off, writes
