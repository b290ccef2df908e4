"""What became of a load: what was lost, when, and what the clients saw."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.faults.load import GAVE_UP, Seen

LONG_WAIT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The requests around a fault."""

    sent: int
    """Requests that were sent after the fault."""
    lost_at_once: int
    """Of those, not served, and sent within the first second."""
    lost_later: int
    """Of those, not served, and sent after the first second."""
    cut: int
    """Answers that had begun before the fault and did not come to their end."""
    failed_before: int
    """Requests that were sent before the fault and failed without a first byte."""
    waited: int
    """Requests sent after the fault whose first byte, or failure, took over three seconds, without
    the time that other processes of the machine took from them, and those whose client gave up."""
    saw: Counter[str]
    """What clients of requests that were not served saw."""
    pods: Counter[str]
    """Requests sent after the first second, by the pod that served them; empty: none did."""
    late_pods: Counter[str]
    """The same, of those that were sent more than three seconds after the fault."""

    @property
    def lost(self) -> int:
        """Requests that were sent after the fault and not served."""
        return self.lost_at_once + self.lost_later

    def __str__(self) -> str:
        return (
            f"of {self.sent} requests {self.lost_at_once} were lost in the first second, "
            f"{self.lost_later} later, {self.waited} waited over {LONG_WAIT_SECONDS:g} s; "
            f"before the fault {self.cut} were cut and {self.failed_before} failed; "
            f"clients saw {dict(self.saw)}; served by {dict(self.pods)}"
        )


def verdict(seen: Iterable[Seen], fault_at: float, until: float = float("inf")) -> Verdict:
    """Return what became of the requests that were sent until then."""
    requests = [each for each in seen if each.at < until]
    after = [each for each in requests if each.at >= fault_at]
    before = [each for each in requests if each.at < fault_at and not each.served]
    lost = [each for each in after if not each.served]
    return Verdict(
        sent=len(after),
        lost_at_once=sum(each.at < fault_at + 1 for each in lost),
        lost_later=sum(each.at >= fault_at + 1 for each in lost),
        cut=sum(each.status == 200 for each in before),
        failed_before=sum(each.status != 200 for each in before),
        waited=sum(
            each.error == GAVE_UP
            or each.first_byte_seconds - each.taken_seconds > LONG_WAIT_SECONDS
            for each in after
        ),
        saw=Counter(f"{each.status} {each.error}".strip() for each in (*lost, *before)),
        pods=Counter(each.pod for each in after if each.at >= fault_at + 1),
        late_pods=Counter(each.pod for each in after if each.at >= fault_at + LONG_WAIT_SECONDS),
    )


def p99(seen: Sequence[Seen]) -> float:
    """Return the 99th percentile of the time to the first byte, in seconds."""
    times = sorted(each.first_byte_seconds for each in seen)
    return times[min(len(times) - 1, len(times) * 99 // 100)]
