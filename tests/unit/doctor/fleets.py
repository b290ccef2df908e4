"""A fleet in which nothing is wrong, to be changed by tests."""

from dataclasses import replace

from lora_router.doctor.facts import Adapter, Facts, Pod, Router

POD = Pod(
    "models/vllm-0",
    base_models=("llama",),
    engine="vllm",
    slots=4,
    listed=8,
    fingerprint="a",
    used=8,
    in_memory=8,
    evicted=0,
    load_seconds=0.05,
    age_seconds=0.2,
    in_flight=5,
    clock_seconds=0.1,
)
ROUTER = Router("router-a", "1.0", "lora-placement", has_peers=True, peers=("router-b",))
HEALTHY = Facts(
    routers=(ROUTER, replace(ROUTER, name="router-b", peers=("router-a",))),
    pods=(POD, replace(POD, name="models/vllm-1")),
    adapters=(Adapter("sql", "llama", listed=2, requests=3),),
    readiness={"ready": True, "reason": "ready", "pods": 2},
    now=1_700_000_000.0,
)


def with_pods(*pods: Pod) -> Facts:
    return replace(HEALTHY, pods=pods)


def with_pod(**changes: object) -> Facts:
    """Return a fleet of which one pod differs."""
    return with_pods(POD, replace(POD, name="models/vllm-1", **changes))  # type: ignore[arg-type]


def with_adapter(**changes: object) -> Facts:
    """Return a fleet with one adapter that differs."""
    adapter = replace(HEALTHY.adapters[0], **changes)  # type: ignore[arg-type]
    return replace(HEALTHY, adapters=(adapter,))


def with_router(**changes: object) -> Facts:
    return replace(HEALTHY, routers=(replace(ROUTER, **changes),))  # type: ignore[arg-type]


def with_readiness(**fields: object) -> Facts:
    return replace(HEALTHY, readiness={**HEALTHY.readiness, **fields})


def with_metric(name: str, value: float, **labels: str) -> Facts:
    return replace(HEALTHY, metrics={name: [(labels, value)]})
