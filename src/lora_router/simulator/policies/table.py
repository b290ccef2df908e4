"""The published policies of the simulator, with their sources."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lora_router.routing.algorithm import Algorithm, AlgorithmOptions
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.policies.dynamo_kv import DynamoKv
from lora_router.simulator.policies.dynamo_lora import DynamoLora
from lora_router.simulator.policies.expected_wait import Cost, HoldForSlot
from lora_router.simulator.policies.l_metric import LMetricLocal
from lora_router.simulator.policies.llmd_default import LlmdDefault
from lora_router.simulator.policies.preble import PrefixCachePreble
from lora_router.simulator.policies.sticky_sessions import StickySessions
from lora_router.simulator.policies.toppings import Toppings


@dataclass(frozen=True, slots=True)
class PublishedPolicy:
    """A policy that only the simulator has."""

    about: str
    """What it does, in one line."""
    source: str
    """Where it is described: the paper or the files, and their version or date."""
    make: Callable[[AlgorithmOptions, EngineOptions], Algorithm]
    """Creates it for pods of this speed."""

    @property
    def module(self) -> str:
        """The module that has it."""
        return self.make.__module__


POLICIES: Mapping[str, PublishedPolicy] = {
    "cost": PublishedPolicy(
        "the pod with the least expected wait: step time, queue, load, and the wait for a slot",
        "the first simulation of this project (2026-11)",
        Cost,
    ),
    "hold": PublishedPolicy(
        "`cost`; a request for which no pod has a slot waits in the router",
        "the first simulation of this project (2026-11)",
        HoldForSlot,
    ),
    "llm-d-default": PublishedPolicy(
        "`weighted-scores` with `prefix:3 queue:2 kv:2`",
        "llm-d-router, `pkg/epp/config/loader/defaults.go` and its chart, commit ebab687 "
        "(2026-08-21); Gateway API Inference Extension, the chart's default profile, 1.2 "
        "(2025-11-30) to 1.5 (2026-04-18), its last release with an endpoint picker",
        LlmdDefault,
    ),
    "dynamo-kv": PublishedPolicy(
        "the fewest blocks: prompt blocks on their way and to be computed, plus blocks in use",
        "NVIDIA Dynamo, `lib/kv-router/src/scheduling/selector/default.rs`, commit 07a6c9c, and "
        "*Routing Concepts* of its documentation (1.6)",
        DynamoKv,
    ),
    "dynamo-lora": PublishedPolicy(
        "the same within the adapter's replicas: as many as its share of the arrivals, by hash",
        "NVIDIA Dynamo, `lib/llm/src/lora` (`controller.rs`, commit 0a8cd5a; `filter.rs`, "
        "75de68b; `config.rs`, 32381ac; `routing/hrw.rs`, 9323dab)",
        DynamoLora,
    ),
    "l-metric-local": PublishedPolicy(
        "the lowest product of prompt tokens to compute and requests",
        "AIBrix, `l_metric_local.go`, commit 2519ad5; Zhang et al., *LMetric*, arXiv 2603.15202 "
        "(2026-03-16)",
        LMetricLocal,
    ),
    "prefix-cache-preble": PublishedPolicy(
        "a pod that has the longest beginning if more than half of the prompt is known, else the "
        "pod with the lowest cost of the last 3 minutes",
        "AIBrix, `prefix_cache_preble.go`, commit e3e10f9 (2026-08-22); Srivatsa et al., "
        "*Preble*, ICLR 2025",
        PrefixCachePreble,
    ),
    "sticky-sessions": PublishedPolicy(
        "a session stays on one of the adapter's two pods, which are chosen by hash",
        "shuffle sharding (llm-d-router#720) with the session affinity of gateways",
        StickySessions,
    ),
    "toppings": PublishedPolicy(
        "the pod on which the request adds the least latency to all requests there",
        "Li et al., *Toppings*, USENIX ATC 2025; *CaraServe*, arXiv 2401.11240v1 (2024-01-20)",
        Toppings,
    ),
}
"""The policies by name."""
