"""Runs all checks."""

from collections.abc import Callable, Iterator, Sequence

from lora_router.doctor import declared, gateway, host_memory, names, pods, routers, slots
from lora_router.doctor.facts import Facts
from lora_router.doctor.findings import ORDER, Finding, Severity

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: Sequence[Check] = (
    *routers.CHECKS,
    *pods.CHECKS,
    *gateway.CHECKS,
    *names.CHECKS,
    *declared.CHECKS,
    *host_memory.CHECKS,
    *slots.CHECKS,
)


def examine(facts: Facts) -> list[Finding]:
    """Return what is wrong or costs, the worst first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def exit_status(findings: Sequence[Finding], *, strict: bool) -> int:
    """Return 1 if there is an error, or with ``strict`` a warning; else 0."""
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    return int(any(finding.severity in bad for finding in findings))
