"""What the doctor needs to know of a process and its pods, beside what the other pages say."""

from collections.abc import Collection
from typing import Annotated

from msgspec import Meta, Struct

from lora_router.debug.slices import in_slices
from lora_router.fleet.adapter_beliefs import AWAY
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HEALTHY, NAMES
from lora_router.fleet.lora_spec import ASSUMED
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState

PODS_AT_ONCE = 8
MAX_BASE_MODELS = 8
_MAX_TEXT = 256
LATE_SECONDS = 30.0
"""A server that has requests writes its time into ``lora_requests_info`` much more often."""


class RouterFacts(Struct, kw_only=True):
    """Settings of one process that decide what the doctor says."""

    name: Annotated[str, Meta(description="Its name among its peers.")] = ""
    has_peers: Annotated[bool, Meta(description="Whether peering is configured.")] = False
    decisions: Annotated[int, Meta(description="The setting `decisions`.")] = 0
    max_hold_seconds: Annotated[float, Meta(description="The setting `max_hold_seconds`.")] = 0.0
    metrics_max_age_seconds: Annotated[
        float, Meta(description="The setting `metrics_max_age_seconds`.")
    ] = 0.0
    max_body_bytes: Annotated[
        int, Meta(description="The setting `max_body_bytes`. 0: unknown.")
    ] = 0


class PodFacts(Struct, kw_only=True, omit_defaults=True):
    """A pod."""

    name: Annotated[str, Meta(description="The pod.")]
    ready: Annotated[bool, Meta(description="Whether discovery says that it is ready.")] = True
    health: Annotated[str, Meta(description="`healthy`, `suspect`, `ejected` or `trying`.")] = (
        "healthy"
    )
    why: Annotated[str, Meta(description="Why it is not healthy.")] = ""
    base_models: Annotated[list[str], Meta(description="Base models that it serves.")] = []
    engine: Annotated[str | None, Meta(description="The engine of its label.")] = None
    slots: Annotated[int | None, Meta(description="Its adapter slots. `null`: unknown.")] = None
    listed: Annotated[int, Meta(description="Adapters that it lists.")] = 0
    fingerprint: Annotated[str, Meta(description="Equal for pods that list the same models.")] = ""
    used: Annotated[int, Meta(description="Adapters that were used on it, as far as is known.")] = 0
    in_memory: Annotated[
        int | None,
        Meta(description="Adapters in slots and host memory. `null`: it does not report this."),
    ] = None
    evicted: Annotated[
        int | None,
        Meta(
            description="Used adapters that are in neither. `null`: it does not report this, and "
            "the size of its host memory is assumed."
        ),
    ] = None
    host_memory: Annotated[
        int | None,
        Meta(description="Adapters that fit in its host memory. `null`: no limit is known."),
    ] = None
    host_memory_source: Annotated[
        str,
        Meta(
            description="How that is known: `command-line`, `label`, `pods-file`, `assumed`, or "
            "`learned`."
        ),
    ] = ASSUMED
    load_seconds: Annotated[
        float | None, Meta(description="Mean time of loading an adapter, if it reports it.")
    ] = None
    shows_load: Annotated[bool, Meta(description="Whether its metrics show its requests.")] = True
    scrape_failures: Annotated[int, Meta(description="Failed scrapes in a row.")] = 0
    age_seconds: Annotated[
        float | None, Meta(description="Age of its last scrape. `null`: there was none.")
    ] = None
    in_flight: Annotated[int, Meta(description="Requests of this process and its peers.")] = 0
    strangers: Annotated[int, Meta(description="Requests that its last scrape showed besides.")] = 0
    clock_seconds: Annotated[
        float | None,
        Meta(description="By how much its clock is ahead, as its metrics show. `null`: unknown."),
    ] = None


class FactsPart(Struct, kw_only=True, omit_defaults=True):
    """A part of what a process answers."""

    router: RouterFacts | None = None
    pods: list[PodFacts] = []


async def fact_parts(
    fleet: Fleet, router: RouterFacts, now: float, wall: float
) -> list[Collection[FactsPart]]:
    """Return the facts of a process and of its pods, made in slices.

    Args:
        fleet: The pods.
        router: The settings.
        now: Seconds on the clock of ``PodMetrics.scraped_at``.
        wall: The same moment in seconds since 1970.
    """
    slices: list[Collection[FactsPart]] = [
        [FactsPart(pods=[pod_facts(state, now, wall) for state in some])]
        async for some in in_slices(tuple(fleet), PODS_AT_ONCE)
    ]
    return [[FactsPart(router=router)], *slices]


def pod_facts(state: PodState, now: float, wall: float) -> PodFacts:
    """Return the facts of a pod. ``now`` and ``wall`` are as for ``fact_parts``."""
    pod, beliefs, metrics, health = state.pod, state.beliefs, state.metrics, state.health
    peers = beliefs.peers
    used = {*beliefs.last_uses, *beliefs.expected, *beliefs.foreign_adapters}
    if state.models_known:  # What the pod no longer lists was unloaded on purpose.
        used &= state.adapters.keys()
    residency, memory = None if metrics is None else metrics.residency, beliefs.memory
    is_known = residency is not None or memory.source != ASSUMED
    return PodFacts(
        name=pod.name,
        ready=pod.ready,
        health=NAMES[health.state],
        why=health.cause[:_MAX_TEXT] if health.state is not HEALTHY else "",
        base_models=sorted(state.base_models)[:MAX_BASE_MODELS],
        engine=pod.engine,
        slots=beliefs.slots,
        listed=len(state.adapters),
        fingerprint=f"{state.catalog.fingerprint:x}" if state.models_known else "",
        used=len(used),
        in_memory=None if residency is None else len(residency.gpu) + len(residency.cpu),
        evicted=sum(beliefs.where(name) == AWAY for name in used) if is_known else None,
        host_memory=memory.limit,
        host_memory_source=memory.source,
        load_seconds=None if metrics is None else metrics.adapter_load_seconds,
        shows_load=metrics is None or metrics.shows_load,
        scrape_failures=state.scrape_failures,
        age_seconds=None if metrics is None else max(0.0, now - metrics.scraped_at),
        in_flight=state.in_flight + peers.requests,
        strangers=max(0, beliefs.foreign_requests - peers.requests),
        clock_seconds=None if metrics is None else clock_of(metrics, wall - now),
    )


def clock_of(metrics: PodMetrics, epoch: float) -> float | None:
    """Return by how much a pod's clock is ahead, as far as a page shows it.

    A time that lies in the future shows it. So does the time of ``lora_requests_info`` if adapters
    have requests: it advances with every step then.

    Args:
        metrics: What the page said.
        epoch: The difference between seconds since 1970 and ``scraped_at``.
    """
    read_at = metrics.scraped_at + epoch
    updated = metrics.lora.updated_at if metrics.lora is not None else 0.0
    ahead = max(updated, metrics.started_at or 0.0) - read_at
    if ahead > 0:
        return ahead
    if metrics.lora is None or not metrics.lora.active or updated <= 0:
        return None
    return ahead if ahead < -LATE_SECONDS else 0.0
