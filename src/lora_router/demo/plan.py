"""What a live fleet consists of: its pods, its routers, and whether these are peers."""

from dataclasses import dataclass, replace

from lora_router.demo.load import ADAPTERS, BASE
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions

PODS = 4
SLOTS = 2
STEP_MS = 30
HOST_LOAD_MS = 80
DISK_LOAD_MS = 300
CHUNK_TOKENS = 512
"""Prompt tokens that a pod computes in a step at most, with those of the answers."""
KV_CACHE_TOKENS = 60_000
_STREAM_INTERVAL = 5
"""Tokens in an event. Fewer events leave more of the machine to what is shown: the first ones."""
_ENGINE = EngineOptions(
    max_loras=SLOTS,
    step_seconds=STEP_MS / 1000,
    host_load_seconds=HOST_LOAD_MS / 1000,
    disk_load_seconds=DISK_LOAD_MS / 1000,
    # As vLLM does by default.
    prefix_caching=True,
    preemption=True,
    chunk_tokens=CHUNK_TOKENS,
    kv_cache_tokens=KV_CACHE_TOKENS,
)


@dataclass(frozen=True, slots=True)
class StackPlan:
    """The processes of a live fleet, apart from Envoy."""

    pods: tuple[PodOptions, ...]
    routers: int = 1
    """Routers that run from the start. Envoy gives each request to the next one."""
    spare_routers: int = 0
    """Further routers, which Envoy and the other routers know of, and which run later."""
    peering: bool = True
    """Whether the routers are peers of each other."""

    @property
    def slots(self) -> int:
        """Adapter slots of each pod."""
        return self.pods[0].engine.max_loras


def demo_plan(routers: int = 1, *, peering: bool = True, slots: int = SLOTS) -> StackPlan:
    """Return the fleet of the demo with this number of routers, and of slots of each pod."""
    engine = replace(_ENGINE, max_loras=slots)
    return StackPlan(
        tuple(
            PodOptions(
                f"pod-{number}",
                base=BASE,
                adapters=ADAPTERS,
                stream_interval=_STREAM_INTERVAL,
                prompt_tokens_details=True,
                engine=engine,
            )
            for number in range(PODS)
        ),
        routers=routers,
        peering=peering,
    )


def routers_text(plan: StackPlan) -> str:
    """Return the routers in words, as part of a sentence."""
    if plan.routers == 1:
        return "the router"
    return f"{plan.routers} routers {'that are peers' if plan.peering else 'without peering'}"
