"""The keys of a scenario file about the autoscaler of the pods."""

from dataclasses import dataclass

from lora_router.simulator.key_kinds import Number, Whole, WrongValueError
from lora_router.simulator.key_records import key
from lora_router.simulator.pod_autoscaler import AutoscalerOptions

_SECONDS = Number(0, 100_000)
_PODS = Whole(1, 10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalerKeys:
    """``autoscaler``: what a HorizontalPodAutoscaler is told, and how long pods take to start."""

    min_pods: int = key(_PODS, "The fewest pods.")
    max_pods: int = key(_PODS, "The most pods.")
    slots_per_pod: float = key(
        Number(0.1, 10_000),
        "The target: slots wanted for each pod (`averageValue`). Less than `slots`, so that some "
        "stay free.",
    )
    requests_per_pod: float | None = key(
        Number(0.1, 1_000_000),
        "A second target: requests in flight or held, for each pod. Absent: none.",
        default=None,
    )
    startup_seconds: float = key(
        _SECONDS, "From the start of a pod to its first request.", default=120.0
    )
    up_window_seconds: float = key(
        _SECONDS, "`stabilizationWindowSeconds` of `scaleUp`.", default=0.0
    )
    down_window_seconds: float = key(
        _SECONDS, "`stabilizationWindowSeconds` of `scaleDown`.", default=300.0
    )
    average_seconds: float = key(
        _SECONDS,
        "The metrics are averages over this time (`avg_over_time`). 0: the last value.",
        default=0.0,
    )
    tolerance: float = key(
        Number(0, 1), "Share by which the metric may miss its target.", default=0.1
    )

    def __post_init__(self) -> None:
        """Check the keys that depend on each other.

        Raises:
            WrongValueError: Two values contradict each other.
        """
        if self.max_pods < self.min_pods:
            allowed = f"must be at least min_pods ({self.min_pods}), not {self.max_pods}"
            raise WrongValueError(allowed, "max_pods")

    def options(self) -> AutoscalerOptions:
        """Return the same as options."""
        return AutoscalerOptions(
            self.min_pods,
            self.max_pods,
            self.slots_per_pod,
            requests_per_pod=self.requests_per_pod,
            startup_seconds=self.startup_seconds,
            up_window_seconds=self.up_window_seconds,
            down_window_seconds=self.down_window_seconds,
            average_seconds=self.average_seconds,
            tolerance=self.tolerance,
        )
