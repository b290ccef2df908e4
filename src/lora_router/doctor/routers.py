"""The router itself: whether it is ready, its peers, tasks, event loop, log and certificates."""

from collections.abc import Iterator

from lora_router.counted import counted
from lora_router.doctor.facts import Facts
from lora_router.doctor.findings import Finding, Severity, named

LAG_SECONDS = 0.25
CERTIFICATE_ERROR_SECONDS = 2 * 86400.0
CERTIFICATE_WARNING_SECONDS = 14 * 86400.0
REPORT_AGE_SECONDS = 2.0
_STRANGERS_SHARE = 0.1
"""Share of the requests on the pods that others may send before it counts."""
_FEWEST_STRANGERS = 2


def not_ready(facts: Facts) -> Iterator[Finding]:
    """Find a router that gateways should not use."""
    reason = str(facts.readiness.get("reason", ""))
    if facts.readiness.get("ready") is False and "lead" not in reason:
        yield Finding(
            "not-ready",
            Severity.ERROR,
            f"The router is not ready: {reason}.",
            "Gateways do not send it requests.",
            "docs/operations.md describes /readyz.",
        )


def discovery(facts: Facts) -> Iterator[Finding]:
    """Find a router that cannot read where its pods are, or files that it needs."""
    for field, check, what in (
        ("discovery_error", "discovery-error", "The list of pods cannot be read"),
        ("pod_access_error", "pod-access-error", "Keys or certificates for pods cannot be used"),
        ("tls_error", "certificate-refused", "The TLS files cannot be used"),
    ):
        error = facts.readiness.get(field)
        if error:
            yield Finding(
                check,
                Severity.ERROR,
                f"{what}: {error}.",
                "What was read last stays in use, and becomes wrong with time.",
                "Mend what the message names. The router reads it again by itself.",
            )


def strangers(facts: Facts) -> Iterator[Finding]:
    """Find requests on the pods that neither this router nor a peer sent."""
    found = sum(pod.strangers for pod in facts.pods)
    everything = found + sum(pod.in_flight for pod in facts.pods)
    if found < _FEWEST_STRANGERS or found < _STRANGERS_SHARE * everything:
        return
    router = facts.router
    what = f"{found} of {everything} requests on the pods were sent by somebody else"
    price = (
        "What others send is known late and in part. In a simulated fleet, four routers that "
        "counted only their own requests had a p99 of 56 s, where one router had 4 s."
    )
    if not router.has_peers:
        yield Finding(
            "no-peering",
            Severity.WARNING,
            f"{what}, and this router has no peering.",
            price,
            "If there are several routers, set peers or peer_service (docs/scaling.md). If clients "
            "call pods directly, send them through the gateway.",
        )
    elif not router.peers:
        yield Finding(
            "no-peer-heard",
            Severity.WARNING,
            f"{what}, and this router hears no peer although peering is configured.",
            price,
            "Check the addresses of peers, the secret, and network policies between routers "
            "(docs/scaling.md).",
        )
    else:
        yield Finding(
            "unknown-senders",
            Severity.HINT,
            f"{what}, who is no peer of this router.",
            price,
            "Send clients that call pods directly through the gateway.",
        )


def peers(facts: Facts) -> Iterator[Finding]:
    """Find peers that are silent, or differ."""
    if facts.unreachable:
        yield Finding(
            "unreachable-routers",
            Severity.WARNING,
            f"{counted(len(facts.unreachable), 'router')} did not answer: "
            f"{named(list(facts.unreachable))}.",
            "What they know is missing here.",
            "Check whether they are overloaded, and the network between routers.",
        )
    age = facts.total("lora_router_peer_report_age_seconds")
    if age > REPORT_AGE_SECONDS:
        yield Finding(
            "silent-peers",
            Severity.WARNING,
            f"The last report of a peer is {age:.1f} s old.",
            "Routers decide by what peers report several times a second.",
            "Check the load of the routers and the network between them (docs/scaling.md).",
        )
    for field, what in (("version", "releases"), ("algorithm", "default algorithms")):
        values = sorted({getattr(router, field) for router in facts.routers} - {""})
        if len(values) > 1:
            yield Finding(
                f"different-{what.replace(' ', '-')}",
                Severity.WARNING,
                f"Routers have different {what}: {named(values)}.",
                "It depends on chance how a request is routed. During a rollout this is normal.",
                "Bring all routers to the same release and settings.",
            )


def tasks(facts: Facts) -> Iterator[Finding]:
    """Find background tasks that fail."""
    failing = facts.readiness.get("failing_tasks")
    if isinstance(failing, dict) and failing:
        yield Finding(
            "failing-tasks",
            Severity.ERROR,
            f"Background tasks fail on every restart: {named(sorted(failing))}.",
            "What they do does not happen: pods are not found or not read.",
            "The field failures of /readyz and the log have the cause.",
        )
    else:
        failed = int(facts.total("lora_router_task_failures_total"))
        if failed:
            yield Finding(
                "task-failures",
                Severity.HINT,
                f"Background tasks failed {counted(failed, 'time')} since the start, and run.",
                "A task restarts by itself.",
                "The log has the cause of each failure.",
            )


def event_loop(facts: Facts) -> Iterator[Finding]:
    """Find an event loop that stalls."""
    lag = max((router.loop_lag_seconds for router in facts.routers), default=0.0)
    stalls = int(facts.total("lora_router_loop_stalls_total"))
    if lag > LAG_SECONDS:
        yield Finding(
            "loop-lag",
            Severity.WARNING,
            f"The event loop lagged by {lag:.2f} s within the last minute.",
            "Every decision waits for it.",
            "Give the router a whole CPU without a limit below it, set workers, or add routers "
            "(docs/scaling.md).",
        )
    elif stalls:
        yield Finding(
            "loop-stalls",
            Severity.HINT,
            f"The event loop stalled {counted(stalls, 'time')} since the start.",
            "Every decision waited for it.",
            "The log has the cause of each stall.",
        )


def log_lines(facts: Facts) -> Iterator[Finding]:
    """Find log lines that were lost."""
    dropped = int(facts.total("lora_router_log_lines_dropped_total"))
    if dropped:
        yield Finding(
            "log-lines-dropped",
            Severity.WARNING,
            f"{counted(dropped, 'log line')} were dropped.",
            "Standard error is not read fast enough, and the router never waits for it.",
            "Check what collects the log. Use log_level: info.",
        )


def certificates(facts: Facts) -> Iterator[Finding]:
    """Find a TLS certificate that ends soon."""
    for _, expires in facts.metrics.get("lora_router_tls_certificate_expiry_timestamp_seconds", ()):
        left = expires - facts.now
        if expires > 0 and left < CERTIFICATE_WARNING_SECONDS:
            is_late = left < CERTIFICATE_ERROR_SECONDS
            when = f"in {left / 86400:.1f} days" if left > 0 else "already"
            yield Finding(
                "certificate-expires",
                Severity.ERROR if is_late else Severity.WARNING,
                f"The TLS certificate of the gRPC port expires {when}.",
                "Then gateways that verify it cannot call the router.",
                "Renew the files. The router reads them again by itself (docs/operations.md).",
            )


def unverified(facts: Facts) -> Iterator[Finding]:
    """Find pods whose certificates are not verified."""
    warning = facts.readiness.get("pod_tls_warning")
    if warning:
        yield Finding(
            "pod-tls-unverified",
            Severity.HINT,
            "The certificates of pods are not verified (pod_tls_skip_verify).",
            "Whoever is between the router and a pod can read the API key and invent metrics.",
            "Set pod_tls_ca_file (docs/engines.md).",
        )


def observation(facts: Facts) -> Iterator[Finding]:
    """Find settings that leave nothing to look at."""
    if not facts.router.decisions:
        yield Finding(
            "decisions-off",
            Severity.HINT,
            "Decisions are not recorded (decisions: 0).",
            "Nobody can explain a slow request afterwards. Recording one takes about 2 µs.",
            "Set decisions: 10000.",
        )


CHECKS = (
    not_ready,
    discovery,
    strangers,
    peers,
    tasks,
    event_loop,
    log_lines,
    certificates,
    unverified,
    observation,
)
