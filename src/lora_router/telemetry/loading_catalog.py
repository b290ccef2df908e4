"""The metrics of adapters that the router loads. A part of ``catalog``."""

from collections.abc import Mapping

from lora_router.telemetry.described import Described

LOADING: Mapping[str, Described] = {
    "lora_router_loads_adapters": Described(
        "gauge",
        "1 if this router loads adapters, 0 if another one does. This and the next metrics only "
        "where adapters may be declared.",
    ),
    "lora_router_declared_adapters": Described(
        "gauge",
        "Declared adapters by state: loaded (a ready pod lists it), missing (it belongs on a pod, "
        "and no pod lists it) and unplaced (no pod is fit or has room). Only of the router that "
        "loads.",
        ("state",),
        "3",
    ),
    "lora_router_adapter_calls_total": Described(
        "counter",
        "Calls of pods to load and unload adapters, by outcome: done, already (nothing was to be "
        "done), refused (the pod cannot load this adapter), cannot-load (the pod takes no such "
        "calls), timeout, unreachable and failed.",
        ("action", "outcome"),
        "14",
    ),
    "lora_router_adapter_load_seconds": Described(
        "histogram", "Duration of calls that loaded an adapter."
    ),
    "lora_router_failing_adapters": Described(
        "gauge",
        "Pairs of a pod and an adapter that the pod failed to load or to unload. They are tried "
        "again.",
    ),
    "lora_router_pods_put_off": Described(
        "gauge",
        "Pods whose next load or unload is put off, by reason: stall (the pod serves requests, and "
        "loads have stalled it enough), memory (host memory is full), failing (what is missing "
        "failed), cannot-load (the pod takes no such calls), unread (its list is read first) and "
        "in-use (an older version has requests).",
        ("reason",),
        "6",
    ),
    "lora_router_model_adapter_status_writes_total": Described(
        "counter",
        "Writes of the status of ModelAdapters by result: written, conflict (the resource "
        "has changed or is gone, and the next round looks again) and failed (the API server "
        "refused the write, or could not be reached). Only where ModelAdapters are followed, and "
        "only the router that loads writes.",
        ("result",),
        "3",
    ),
}
