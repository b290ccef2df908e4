"""What the loader has done so far, for metrics. Nothing in it names an adapter or a pod."""

from collections import Counter

from lora_router.adapters.calls import Action, Call, Outcome, Result
from lora_router.telemetry.times import REQUEST_EDGES, Times


class Tally:
    """Counts of one loader."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[Action, Outcome]] = Counter()
        self.load_times = Times(REQUEST_EDGES)
        """How long loads took that succeeded."""

    def ended(self, call: Call, result: Result) -> None:
        """Count a call."""
        self.calls[call.action, result.outcome] += 1
        if call.action == "load" and result.outcome == "done":
            self.load_times.observe(result.seconds)
