"""Pods: whether they are there and well, can be read, and keep time."""

from collections.abc import Iterator

from lora_router.counted import counted
from lora_router.doctor.facts import Facts
from lora_router.doctor.findings import Finding, Severity, named

CLOCK_SECONDS = 5.0
"""A clock that is off by more is wrong."""


def none_ready(facts: Facts) -> Iterator[Finding]:
    """Find a fleet without a pod that takes requests."""
    if not any(pod.ready for pod in facts.pods):
        yield Finding(
            "no-ready-pod",
            Severity.ERROR,
            f"No pod is ready, of {len(facts.pods)}.",
            "All requests are refused.",
            "Check the pods, and the settings by which the router finds them (lora-router config).",
        )


def unhealthy(facts: Facts) -> Iterator[Finding]:
    """Find pods that get no requests because they fail."""
    pods = [pod for pod in facts.pods if pod.ready and pod.health in {"ejected", "trying"}]
    if pods:
        ready = sum(pod.ready for pod in facts.pods)
        yield Finding(
            "ejected-pods",
            Severity.ERROR if 2 * len(pods) >= ready else Severity.WARNING,
            f"Excluded because they failed: {len(pods)} of {counted(ready, 'pod')}: "
            f"{named([f'{pod.name} ({pod.why})' if pod.why else pod.name for pod in pods])}.",
            "The others have their load. If all fail, all are used again.",
            "Look at the log of these pods. docs/health.md says what counts as a failure.",
        )


def unread(facts: Facts) -> Iterator[Finding]:
    """Find pods whose metrics cannot be read, or are old."""
    oldest = facts.router.metrics_max_age_seconds
    pods = [
        pod
        for pod in facts.pods
        if pod.ready and (pod.age_seconds is None or pod.age_seconds > oldest)
    ]
    ready = sum(pod.ready for pod in facts.pods)
    if pods:
        causes = sorted(
            {
                labels.get("cause", "")
                for labels, value in facts.metrics.get("lora_router_scrape_failures_total", ())
                if value and labels.get("pod") in {pod.name for pod in pods}
            }
        )
        because = f" ({', '.join(causes)})" if causes else ""
        yield Finding(
            "stale-pods",
            Severity.ERROR if len(pods) == ready else Severity.WARNING,
            f"Not read for {oldest:g} s: {len(pods)} of {counted(ready, 'pod')}: "
            f"{named([pod.name for pod in pods])}{because}.",
            "The router does not know their load and what is in their slots, except for what it "
            "sent itself.",
            "Try lora-router scrape URL. Network policies, pod_api_key_file and the ports of the "
            "labels are the usual causes.",
        )
    failing = [
        pod.name for pod in facts.pods if pod.ready and pod.scrape_failures and pod not in pods
    ]
    if failing:
        yield Finding(
            "scrape-errors",
            Severity.HINT,
            f"The last scrape of {counted(len(failing), 'pod')} failed: {named(failing)}.",
            "The last values stay in use, and age.",
            "If it stays so, look at lora_router_scrape_failures_total{pod,cause}.",
        )


def loadless(facts: Facts) -> Iterator[Finding]:
    """Find pods whose page does not show their load."""
    pods = [
        pod.name
        for pod in facts.pods
        if pod.ready and pod.age_seconds is not None and not pod.shows_load
    ]
    if pods:
        yield Finding(
            "pods-without-load",
            Severity.WARNING,
            f"The metrics of {counted(len(pods), 'pod')} show no requests: {named(pods)}.",
            "The router uses what routers sent there. It does not see other clients.",
            "Check that the port is that of the server, and the label of the engine "
            "(docs/engines.md).",
        )


def clocks(facts: Facts) -> Iterator[Finding]:
    """Find pods whose clock differs from that of the router."""
    pods = [pod for pod in facts.pods if abs(pod.clock_seconds or 0.0) > CLOCK_SECONDS]
    if pods:
        worst = max(pods, key=lambda pod: abs(pod.clock_seconds or 0.0))
        off = worst.clock_seconds or 0.0
        way = "ahead" if off > 0 else "behind"
        yield Finding(
            "clock-differences",
            Severity.WARNING,
            f"The clock of {worst.name} is {abs(off):,.0f} s {way} "
            f"({counted(len(pods), 'pod')} off by more than {CLOCK_SECONDS:g} s).",
            "The router itself compares no clocks. Logs, traces and certificates do, and a page "
            "that is that old may come from a cache or from a process that hangs.",
            "Check NTP on the node, and that nothing caches the metrics page.",
        )


CHECKS = (none_ready, unhealthy, unread, loadless, clocks)
