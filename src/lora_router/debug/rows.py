"""The rows of the debug pages. ``docs/debug.md`` lists them; ``docs/write_debug.py`` makes it.

A row describes one thing: a pod, an adapter, a request. Rows that only processes tell each other,
because they are merged, are in ``parts``. Rows refer to nothing that refers to them, so the garbage
collector need not look at the thousands of them that a page of a large fleet has.
"""

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct


class RouterRow(Struct, kw_only=True, gc=False):
    """One process that serves gateways: a router, or one worker of a router."""

    name: Annotated[str, Meta(description="Its name among its peers.")] = ""
    version: Annotated[str, Meta(description="The release.")] = ""
    algorithm: Annotated[str, Meta(description="The default algorithm.")] = ""
    ready: Annotated[bool, Meta(description="Whether gateways should send it requests.")] = False
    reason: Annotated[str, Meta(description="Why it is ready or not, as `/readyz` says it.")] = ""
    pods: Annotated[int, Meta(description="Pods that it knows.")] = 0
    held: Annotated[int, Meta(description="Requests that wait in it.")] = 0
    in_flight: Annotated[int, Meta(description="Requests that it sent to pods, and that run.")] = 0
    decisions: Annotated[int, Meta(description="Decisions since its start.")] = 0
    loop_lag_seconds: Annotated[
        float, Meta(description="Largest lag of its event loop within the last minute.")
    ] = 0.0
    uptime_seconds: Annotated[float, Meta(description="Time since its start.")] = 0.0
    peers: Annotated[list[str], Meta(description="The peers that it hears.")] = []


class AdapterOnPod(Struct, kw_only=True, gc=False):
    """An adapter on one pod."""

    name: Annotated[str, Meta(description="The adapter.")]
    place: Annotated[
        str, Meta(description="`running` (requests in flight), `slot`, or `host-memory`.")
    ]
    in_flight: Annotated[int, Meta(description="Its requests on the pod, of all routers.")] = 0
    closed: Annotated[
        bool, Meta(description="Whether its slot gets no further requests, for one that waits.")
    ] = False


class PodRow(Struct, kw_only=True, gc=False):
    """A pod."""

    name: Annotated[str, Meta(description="The pod, on Kubernetes `namespace/name`.")]
    address: Annotated[str, Meta(description="Its endpoint, `ip:port`.")] = ""
    state: Annotated[str, Meta(description="`ready` or `not-ready`, as discovery says.")] = ""
    health: Annotated[
        str,
        Meta(description="`healthy`, `suspect`, `ejected` or `trying`: the worst of all routers."),
    ] = "healthy"
    why: Annotated[str, Meta(description="Why it is not healthy. Empty: it is.")] = ""
    base_models: Annotated[list[str], Meta(description="Base models that it serves.")] = []
    engine: Annotated[str | None, Meta(description="The engine of its label.")] = None
    slots: Annotated[int | None, Meta(description="Its adapter slots. `null`: unknown.")] = None
    free_slots: Annotated[
        int | None,
        Meta(description="Slots without a running adapter. Negative: so many adapters too many."),
    ] = None
    host_memory: Annotated[
        int | None,
        Meta(
            description="Adapters that fit in its host memory, those in slots included. `null`: no "
            "limit is known."
        ),
    ] = None
    host_memory_source: Annotated[
        str,
        Meta(
            description="How that is known: `command-line`, `label`, `pods-file`, `assumed` (as "
            "many as slots, as in vLLM), or `learned` from how long loads take."
        ),
    ] = ""
    host_load_seconds: Annotated[
        float | None, Meta(description="What a load from host memory is expected to take.")
    ] = None
    disk_load_seconds: Annotated[
        float | None, Meta(description="What a load from disk or a remote store is expected to.")
    ] = None
    adapters: Annotated[
        list[AdapterOnPod], Meta(description="What is on it: running ones first.")
    ] = []
    adapters_more: Annotated[int, Meta(description="Further ones that are left out.")] = 0
    in_flight: Annotated[int, Meta(description="Requests in flight, of all routers.")] = 0
    others_requests: Annotated[
        int, Meta(description="Requests beyond those that its last scrape showed.")
    ] = 0
    waiting: Annotated[float | None, Meta(description="Requests in the pod's own queue.")] = None
    cache_use: Annotated[float | None, Meta(description="Share of its KV cache in use.")] = None
    age_seconds: Annotated[
        float | None, Meta(description="Age of its last scrape. `null`: there was none.")
    ] = None


class FailingLoad(Struct, kw_only=True, gc=False):
    """A pod that failed to load or to unload a declared adapter."""

    pod: Annotated[str, Meta(description="The pod.")]
    action: Annotated[str, Meta(description="`load` or `unload`.")] = ""
    reason: Annotated[str, Meta(description="What the pod said last.")] = ""
    failures: Annotated[int, Meta(description="How often it failed in a row.")] = 0
    next_try_seconds: Annotated[float, Meta(description="Time until it is tried again.")] = 0.0


class AdapterRow(Struct, kw_only=True, gc=False):
    """An adapter."""

    name: Annotated[str, Meta(description="The adapter, as pods serve it.")]
    base_model: Annotated[str, Meta(description="Its base model. Empty: unknown.")] = ""
    declared_by: Annotated[
        str,
        Meta(
            description="Who declares it: `file`, `template`, `command` or `model-adapter "
            "NAMESPACE/NAME`. Empty: nobody."
        ),
    ] = ""
    state: Annotated[
        str,
        Meta(
            description="How far it is as declared: `loaded`, `partly`, `loading`, `failing`, "
            "`waiting` for its turn, or `unplaced` (no pod is fit, or none has room). Empty: it is "
            "not declared."
        ),
    ] = ""
    unplaced_because: Annotated[
        str,
        Meta(description="Why it has no place, or fewer than it declares. Empty: it has."),
    ] = ""
    source: Annotated[str, Meta(description="From where pods load it, as declared.")] = ""
    wanted: Annotated[int, Meta(description="Number of pods on which it belongs.")] = 0
    loading: Annotated[list[str], Meta(description="Pods that load it now.")] = []
    failing: Annotated[
        list[FailingLoad], Meta(description="Pods that failed to load or to unload it.")
    ] = []
    running: Annotated[list[str], Meta(description="Pods on which it has requests.")] = []
    loaded: Annotated[
        list[str],
        Meta(
            description="Other pods that have it in a slot or in host memory, as far as is known."
        ),
    ] = []
    listed: Annotated[int, Meta(description="Number of pods that list it.")] = 0
    listed_on: Annotated[list[str], Meta(description="These pods, 32 at most.")] = []
    held: Annotated[int, Meta(description="Its requests that wait in routers.")] = 0
    in_flight: Annotated[int, Meta(description="Its requests on pods, of all routers.")] = 0
    requests: Annotated[int, Meta(description="Its requests since the start.")] = 0
    hits: Annotated[
        int, Meta(description="Those that found it on the pod: running, in a slot, in host memory.")
    ] = 0
    misses: Annotated[int, Meta(description="Those that found it nowhere on the pod.")] = 0
    failed: Annotated[int, Meta(description="Those that failed.")] = 0
    p50_seconds: Annotated[
        float | None, Meta(description="Median time to the first byte. `null`: unknown.")
    ] = None
    p99_seconds: Annotated[
        float | None,
        Meta(description="The same, 99th percentile. `null`: of fewer than 10 requests, too."),
    ] = None
    hold_p99_seconds: Annotated[
        float | None, Meta(description="99th percentile of the time that requests were held.")
    ] = None


class LoaderStep(Struct, kw_only=True, gc=False):
    """A load or an unload that is to be done."""

    action: Annotated[str, Meta(description="`load` or `unload`.")]
    adapter: Annotated[str, Meta(description="The adapter, as pods serve it.")]
    pod: Annotated[str, Meta(description="The pod.")]
    reason: Annotated[
        str,
        Meta(
            description="Why: `everywhere`, `copies`, `demand`, `first-use`, `pinned`, "
            "`spare-memory`; of an unload `removed`, `older-version`, `makes-room`, "
            "`misplaced`, `replaced`."
        ),
    ] = ""
    put_off: Annotated[
        str,
        Meta(
            description="Why it is not done now: `stall`, `memory`, `failing`, `cannot-load`, "
            "`unread`, `in-use`. Empty: it is."
        ),
    ] = ""


class Obeyed(Struct, kw_only=True, gc=False):
    """What became of an order."""

    router: Annotated[str, Meta(description="The router that loads, and obeyed.")] = ""
    message: Annotated[str, Meta(description="What it does.")] = ""


class ClosingSlot(Struct, kw_only=True, gc=False):
    """A slot that is closed for a request that waits."""

    pod: Annotated[str, Meta(description="The pod.")]
    adapter: Annotated[str, Meta(description="The adapter in the slot.")]


class HeldRow(Struct, kw_only=True, gc=False):
    """A request that waits in a router."""

    request_id: Annotated[str, Meta(description="The header `x-request-id`.")] = ""
    router: Annotated[str, Meta(description="Where it waits.")] = ""
    model: Annotated[str, Meta(description="The model that it asks for.")] = ""
    adapter: Annotated[str, Meta(description="The same if it is an adapter.")] = ""
    algorithm: Annotated[str, Meta(description="The algorithm that holds it.")] = ""
    reason: Annotated[str, Meta(description="Why it is held.")] = ""
    seconds: Annotated[float, Meta(description="How long it has waited.")] = 0.0
    wanted: Annotated[
        str | None, Meta(description="The pod whose free slot it would take from a peer.")
    ] = None
    closing: Annotated[
        ClosingSlot | None, Meta(description="The slot that is being emptied for it.")
    ] = None


class CandidateRow(Struct, kw_only=True, gc=False):
    """A pod, as a decision saw it."""

    pod: Annotated[str, Meta(description="The pod.")]
    requests: Annotated[
        int | None, Meta(description="Requests in flight on it. `null`: not noted.")
    ] = None
    free_slots: Annotated[
        int | None, Meta(description="Its free slots. `null`: unknown, or not noted.")
    ] = None
    place: Annotated[
        str,
        Meta(
            description="Where the adapter is: `running`, `slot`, `host-memory`, `nowhere`. Empty: "
            "the request is for no adapter, or it was not noted."
        ),
    ] = ""
    terms: Annotated[
        Mapping[str, float], Meta(description="What it costs, by term of the algorithm.")
    ] = {}
    cost: Annotated[
        float | None, Meta(description="The sum of the terms. `null`: excluded, or no terms.")
    ] = None
    excluded: Annotated[str, Meta(description="Why it cannot be picked. Empty: it can.")] = ""


class DecisionRow(Struct, kw_only=True, gc=False):
    """What was decided about a request, and what became of it."""

    number: Annotated[int, Meta(description="Counts the decisions of its router.")] = 0
    router: Annotated[str, Meta(description="The router that decided.")] = ""
    at: Annotated[float, Meta(description="Its arrival, in seconds since 1970.")] = 0.0
    request_id: Annotated[str, Meta(description="The header `x-request-id`.")] = ""
    path: Annotated[str, Meta(description="The path.")] = ""
    model: Annotated[str, Meta(description="The model that it asks for.")] = ""
    adapter: Annotated[str, Meta(description="The same if it is an adapter.")] = ""
    base_model: Annotated[str, Meta(description="The base model, as far as is known.")] = ""
    size: Annotated[int, Meta(description="Bytes of its body.")] = 0
    stream: Annotated[bool, Meta(description="Whether it asks for a streamed answer.")] = False
    algorithm: Annotated[str, Meta(description="The algorithm.")] = ""
    outcome: Annotated[
        str, Meta(description="`routed`, `refused`, `answered` (by the router) or `cancelled`.")
    ] = ""
    reason: Annotated[str, Meta(description="Why this pod, or why none.")] = ""
    pod: Annotated[str, Meta(description="The pod that was picked.")] = ""
    endpoint: Annotated[str, Meta(description="Its address.")] = ""
    held_seconds: Annotated[float, Meta(description="How long it was held.")] = 0.0
    held_for: Annotated[str, Meta(description="Why it was held. Empty: it was not.")] = ""
    body_seconds: Annotated[float, Meta(description="Until it was clear what it asks for.")] = 0.0
    decision_seconds: Annotated[float, Meta(description="Time to pick the pod.")] = 0.0
    pod_seconds: Annotated[
        float | None, Meta(description="From the decision to the headers of the answer.")
    ] = None
    first_byte_seconds: Annotated[
        float | None, Meta(description="From its headers to those of the answer.")
    ] = None
    seconds: Annotated[float | None, Meta(description="From its headers to its end.")] = None
    status: Annotated[int, Meta(description="HTTP status of the answer. 0: unknown.")] = 0
    details: Annotated[str, Meta(description="Envoy's response code details.")] = ""
    retried_on: Annotated[str, Meta(description="The pod that served it in the end.")] = ""
    unanswered: Annotated[
        bool, Meta(description="Whether its stream ended before an answer began.")
    ] = False
    place: Annotated[str, Meta(description="Where the adapter was on the pod.")] = ""
    spilled: Annotated[bool, Meta(description="Whether no slot was free on the pod.")] = False
    replicated: Annotated[
        bool, Meta(description="Whether the adapter was in flight on other pods only.")
    ] = False
    prompt_tokens: Annotated[int | None, Meta(description="From the usage of the answer.")] = None
    completion_tokens: Annotated[int | None, Meta(description="From the usage of the answer.")] = (
        None
    )
    cached_tokens: Annotated[
        int | None,
        Meta(description="Of the prompt, from the cache, by the usage of the answer."),
    ] = None
    estimated_prompt_tokens: Annotated[
        int | None,
        Meta(description="Tokens of its prompt, as estimated. `null`: it was not read."),
    ] = None
    expected_cached_tokens: Annotated[
        int | None,
        Meta(description="How many of them the router believed to be in the cache of the pod."),
    ] = None
    abnormal: Annotated[
        bool,
        Meta(description="Whether it was held, refused, retried, cancelled or slow, or failed."),
    ] = False
    slow: Annotated[
        bool, Meta(description="Whether its first byte took longer than `slow_request_seconds`.")
    ] = False


class ExplainedDecision(DecisionRow, kw_only=True, gc=False):
    """A decision with what it saw of the candidates."""

    candidates: Annotated[
        list[CandidateRow],
        Meta(description="The candidates, as they were. Empty: they were not kept."),
    ] = []
    held_candidates: Annotated[
        list[CandidateRow], Meta(description="The same when it began to be held.")
    ] = []
    text: Annotated[str, Meta(description="The explanation in sentences.")] = ""


class Explanation(Struct, kw_only=True, gc=False):
    """What would become of a request now."""

    router: Annotated[str, Meta(description="The router that answers.")] = ""
    asked: Annotated[str, Meta(description="The name that was asked for.")] = ""
    model: Annotated[str, Meta(description="What the name stands for.")] = ""
    adapter: Annotated[str, Meta(description="The same if it is an adapter.")] = ""
    base_model: Annotated[str, Meta(description="The base model, as far as is known.")] = ""
    algorithm: Annotated[str, Meta(description="The algorithm.")] = ""
    answer: Annotated[str, Meta(description="`pick`, `hold` or `refuse`.")] = ""
    pod: Annotated[str, Meta(description="The pod that it would get.")] = ""
    reason: Annotated[str, Meta(description="Why this pod, or why none.")] = ""
    detail: Annotated[str, Meta(description="What else there is to say about it.")] = ""
    wanted: Annotated[
        str | None, Meta(description="The pod whose free slot it would take from a peer.")
    ] = None
    closing: Annotated[
        ClosingSlot | None, Meta(description="The slot that would be emptied for it.")
    ] = None
    held: Annotated[int, Meta(description="Requests that wait with the same question.")] = 0
    candidates: Annotated[
        list[CandidateRow],
        Meta(description="Pods that were considered, then those that are excluded."),
    ] = []
    excluded: Annotated[
        Mapping[str, int], Meta(description="Number of excluded pods by cause, of all pods.")
    ] = {}
    more: Annotated[int, Meta(description="Pods that are left out of `candidates`.")] = 0
    text: Annotated[str, Meta(description="The explanation in sentences.")] = ""
