"""One log line for each request that was held, refused, retried, cancelled or slow, or failed.

The values come from clients, gateways and plug-ins. ``logs`` writes them so that none can begin a
line, add a field, or control a terminal. Prompts, keys and other headers are not in records, so
they cannot get here.

The number of lines is limited, since whoever can send requests can cause them. Warnings and other
lines are limited apart: a flood of refused requests hides no failure.
"""

import logging
from collections.abc import Callable, Iterator

from lora_router.log_limit import LogLimit
from lora_router.telemetry.decisions import Decision, DecisionLog

log = logging.getLogger("lora_router.requests")

REPORT_SECONDS = 10.0
"""How long suppressed lines are counted before a line says how many there were."""

_WARNED = {"failed", "slow"}

Field = str | float
CallLater = Callable[[float, Callable[[], None]], object]


class AbnormalLines:
    """Writes the lines of abnormal requests, at a limited rate."""

    def __init__(
        self,
        decisions: DecisionLog,
        per_second: int,
        call_later: CallLater,
        now: Callable[[], float],
    ) -> None:
        """Follow a log of decisions.

        Args:
            decisions: The log to follow.
            per_second: The most lines of one level in a second. More are counted.
            call_later: Schedules a call, so many seconds from now.
            now: Returns seconds, monotonic.
        """
        self._is_slow = decisions.is_slow
        self._limit = LogLimit(1.0, burst=per_second, clock=now)
        self._call_later = call_later
        self._suppressed: dict[str, int] = {}
        """By what was abnormal, the lines that were not written since the last report."""
        decisions.on_abnormal.append(self.ended)

    def ended(self, decision: Decision) -> None:
        """Write the line of an abnormal request that has ended."""
        slow = self._is_slow(decision)
        level = logging.WARNING if slow or decision.failed else logging.INFO
        if not log.isEnabledFor(level):
            return
        if self._limit.allow(level) is None:
            self._suppress(decision, slow=slow)
            return
        what = ",".join(_abnormal(decision, slow=slow))
        log.log(level, "request %s", what, extra={"fields": fields_of(decision)})

    def _suppress(self, decision: Decision, *, slow: bool) -> None:
        suppressed = self._suppressed
        if not suppressed:
            self._call_later(REPORT_SECONDS, self._report)
        what = next(_abnormal(decision, slow=slow))
        suppressed[what] = suppressed.get(what, 0) + 1

    def _report(self) -> None:
        """Say how many lines were not written. Each request counts once, by what was worst."""
        suppressed, self._suppressed = self._suppressed, {}
        warns = not _WARNED.isdisjoint(suppressed)
        log.log(
            logging.WARNING if warns else logging.INFO,
            "lines suppressed by log_abnormal_per_second: %d",
            sum(suppressed.values()),
            extra={"fields": suppressed},
        )


def _abnormal(decision: Decision, *, slow: bool) -> Iterator[str]:
    """Yield what was abnormal, the worst first."""
    if decision.failed:
        yield "failed"
    if slow:
        yield "slow"
    if decision.outcome in ("refused", "cancelled"):
        yield decision.outcome
    if decision.unanswered:
        yield "unanswered"
    if decision.retried_on:
        yield "retried"
    if decision.held_for:
        yield "held"


def fields_of(decision: Decision) -> dict[str, Field]:
    """Return the fields of a line. Those that are empty or unknown are left out."""
    first_byte, seconds = decision.first_byte_seconds, decision.seconds
    fields: dict[str, Field] = {
        "request_id": decision.request_id,
        "path": decision.path,
        "model": decision.model,
        "adapter": decision.adapter,
        "base_model": decision.base_model,
        "algorithm": decision.algorithm,
        "outcome": decision.outcome,
        "reason": decision.reason,
        "pod": decision.pod,
        "endpoint": decision.endpoint,
        "retried_on": decision.retried_on,
        "held_for": decision.held_for,
        "status": decision.status,
        "details": decision.details,
    }
    fields = {name: value for name, value in fields.items() if value}
    if decision.held_for:
        fields["held_seconds"] = round(decision.held_seconds, 3)
    if first_byte is not None:
        fields["first_byte_seconds"] = round(first_byte, 3)
    if seconds is not None:
        fields["seconds"] = round(seconds, 3)
    return fields
