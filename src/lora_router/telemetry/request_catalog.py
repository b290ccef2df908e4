"""The metrics of requests: by base model, by adapter, and by pod. A part of ``catalog``."""

from collections.abc import Mapping

from lora_router.telemetry.described import Described

_ADAPTERS = "`metrics_adapters` + 1"
_MODELS = "65"
_PODS = "pods"
_POD_LABEL = ("pod",)
_MODEL_LABEL = ("base_model",)
_ADAPTER_LABEL = ("adapter",)
_FAILED = (
    "Routed requests that failed by cause: status (the answer of the pod, or of Envoy in its "
    "place, has a status from 500 on) and unanswered (the stream ended before an answer began, "
    "mostly because the client left)"
)

REQUESTS: Mapping[str, Described] = {
    "lora_router_requests_total": Described(
        "counter",
        "Requests by outcome: routed, refused, answered (by the router itself), held (waits in "
        "the router), cancelled (the client disconnected while the request was held). A held "
        "request counts again with its second outcome, so the number of requests is the sum "
        'without outcome="held".',
        ("algorithm", "outcome", "reason"),
        "513",
    ),
    "lora_router_decision_seconds": Described(
        "histogram",
        "Time to choose a pod and count the request, without body parsing and waiting.",
        ("algorithm",),
        "257",
    ),
    "lora_router_time_to_first_byte_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to those of its answer, with the time for "
        "which it was held, by base model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_request_duration_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to the end of its stream, by base model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_hold_seconds": Described(
        "histogram",
        "Time for which requests were held that waited in the router for a pod, by base model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_spills_total": Described(
        "counter",
        "Requests sent to a pod on which their adapter had no slot and no slot was free, by base "
        "model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_replications_total": Described(
        "counter",
        "Requests sent to a pod on which their adapter was not in flight while it was on other "
        "pods, by base model.",
        _MODEL_LABEL,
        _MODELS,
    ),
    "lora_router_tokens_total": Described(
        "counter",
        "Tokens according to the usage in answers, by kind (prompt, completion) and base model. "
        "Only with the setting tokens.",
        ("kind", "base_model"),
        "130",
    ),
    "lora_router_prefix_tokens_total": Described(
        "counter",
        "Prompt tokens by kind and base model: estimated (of requests whose prompts the router "
        "read, because the algorithm asked), expected_cached (those of them that it believed to be "
        "in the prefix cache of the pod), stated (of answers whose usage states cached tokens) and "
        "stated_cached (these). The last two only with the setting tokens.",
        ("kind", "base_model"),
        "260",
    ),
    "lora_router_usage_answers_total": Described(
        "counter",
        "Answers that may state how many tokens the request took: usage is stated, missing, or "
        "encoded (the answer is compressed, and the router did not read it). Only with the "
        "setting tokens.",
        ("usage",),
        "3",
    ),
    "lora_router_answers_total": Described(
        "counter",
        "Answers to routed requests, by who gave them (the pod, or Envoy in its place) and by "
        "the class of the HTTP status.",
        ("by", "status"),
        "18",
    ),
    "lora_router_failed_requests_total": Described(
        "counter",
        f"{_FAILED}, by base model. Failures of pods that have left stay in it.",
        ("base_model", "cause"),
        f"2 for each of {_MODELS}",
    ),
    "lora_router_retried_requests_total": Described(
        "counter",
        "Requests that Envoy sent to another pod than the picked one.",
    ),
    "lora_router_requests_served_elsewhere_total": Described(
        "counter",
        "Deprecated: the old name of lora_router_retried_requests_total.",
        renamed="lora_router_retried_requests_total",
    ),
    "lora_router_held_requests": Described("gauge", "Requests that wait in this router for a pod."),
    "lora_router_reservations": Described(
        "gauge",
        "Requests in the in-flight ledger, including those on pods that have left the fleet.",
    ),
}

BY_ADAPTER: Mapping[str, Described] = {
    "lora_router_adapter_requests_total": Described(
        "counter",
        "Requests sent to a pod, by adapter and by where the adapter was found there: running, "
        "slot, host-memory (hits), or nowhere (a cold placement).",
        ("adapter", "found"),
        f"4 for each of {_ADAPTERS}",
    ),
    "lora_router_adapter_time_to_first_byte_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to those of its answer, with the time for "
        "which it was held, by adapter.",
        _ADAPTER_LABEL,
        _ADAPTERS,
    ),
    "lora_router_adapter_request_duration_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to the end of its stream, by adapter.",
        _ADAPTER_LABEL,
        _ADAPTERS,
    ),
    "lora_router_adapter_hold_seconds": Described(
        "histogram",
        "Time for which requests were held that waited in the router for a pod, by adapter.",
        _ADAPTER_LABEL,
        _ADAPTERS,
    ),
    "lora_router_adapter_failed_requests_total": Described(
        "counter",
        f"{_FAILED}, by adapter.",
        ("adapter", "cause"),
        f"2 for each of {_ADAPTERS}",
    ),
    "lora_router_adapter_tokens_total": Described(
        "counter",
        "Tokens according to the usage in answers, by kind (prompt, completion) and adapter. Only "
        "with tokens=on.",
        ("kind", "adapter"),
        f"2 for each of {_ADAPTERS}",
    ),
}

BY_POD: Mapping[str, Described] = {
    "lora_router_pod_time_to_first_byte_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to those of its answer, with the time for "
        "which it was held, by the pod that was picked.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_pod_request_duration_seconds": Described(
        "histogram",
        "Time from the headers of a routed request to the end of its stream, by the pod that was "
        "picked.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_pod_failed_requests_total": Described(
        "counter",
        f"{_FAILED}, by base model and by the pod that was picked. They leave with their pod.",
        ("base_model", "pod", "cause"),
        "2 for each base model of each pod",
    ),
    "lora_router_in_flight_requests": Described(
        "gauge",
        "Requests sent to the pod by this router and not finished.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_in_flight_adapters": Described(
        "gauge",
        "Distinct adapters of the requests in flight on the pod.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_snapshot_age_seconds": Described(
        "gauge",
        "Age of the pod's last successful scrape; absent before the first.",
        _POD_LABEL,
        _PODS,
    ),
    "lora_router_scrape_failures_total": Described(
        "counter",
        "Failed reads of a pod's /metrics or /v1/models. The last snapshot stays in use.",
        ("kind", "pod", "cause"),
        "20 for each pod that fails",
    ),
    "lora_router_scrape_failures_in_a_row": Described(
        "gauge",
        "Reads of a pod's /metrics or /v1/models by this router that failed since the last one "
        "that succeeded. It stays as it is while a peer reads the pod.",
        ("kind", "pod"),
        "2 for each pod that failed",
    ),
}
