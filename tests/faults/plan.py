"""How long the fault tests take: a short plan for CI, and a long one for ``make faults``."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of the cases."""

    rate: float
    """Requests per second of the load beside a fault."""
    seconds: float
    """How long the load runs after a fault."""
    hang_seconds: float
    """The same, where a pod hangs. Longer than the time that a request may wait because of it."""
    lost_at_once: int
    """Requests that a pod that fails at once may cost within a second. The goal is 5. On a busy
    machine it depends on how soon the router is told."""
    killed_seconds: float
    """How long the load runs after a pod was killed for good."""
    away_seconds: float
    """How long a router is away."""
    each_algorithm: bool
    """Whether pods fail once for each algorithm, or once for a load with all of them."""
    bursts: int
    """Of 40 requests each, when pods are about to close idle connections."""
    keep_alive_seconds: float
    """How long pods keep idle connections, in the test of that. vLLM's default is 5 s."""
    envoy_idle_seconds: float
    """How long Envoy does. The printed default is 3 s."""
    names: int
    """Models that nobody serves."""
    uploads: int
    """Of 20 MB each, at the same time."""


SHORT = Plan(
    rate=60,
    seconds=3,
    hang_seconds=5,
    lost_at_once=10,
    killed_seconds=3,
    away_seconds=4,
    each_algorithm=False,
    bursts=6,
    # On a busy machine, Envoy's timers are late.
    keep_alive_seconds=3,
    envoy_idle_seconds=0.6,
    names=10_000,
    uploads=25,
)
LONG = Plan(
    rate=100,
    seconds=5,
    hang_seconds=6,
    lost_at_once=5,
    killed_seconds=60,
    away_seconds=10,
    each_algorithm=True,
    bursts=25,
    keep_alive_seconds=5,
    envoy_idle_seconds=3,
    names=100_000,
    uploads=50,
)
PLAN = LONG if os.environ.get("FAULTS_PLAN") == "long" else SHORT
