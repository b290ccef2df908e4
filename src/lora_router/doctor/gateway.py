"""The gateway, as far as it shows in what the router sees."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from lora_router.counted import counted
from lora_router.doctor.facts import Facts
from lora_router.doctor.findings import Finding, Severity

_CUTS = 3
"""Requests that are given up after the same time."""
_CUT_SECONDS = 0.2
"""Envoy's default message timeout. Clients leave earlier for other reasons."""
_CUT_SPREAD_SECONDS = 0.25


class _Cause(NamedTuple):
    check: str
    parts: tuple[str, ...]
    """Parts of Envoy's response code details."""
    what: str
    why: str
    fix: str


_CAUSES = (
    _Cause(
        "gateway-timeouts",
        ("timeout", "duration"),
        "ended by a timeout of the gateway",
        "Envoy's default for a route is 15 s. Long answers, and requests that are held, take "
        "longer.",
        "Set the timeout of the route to 0 or above your longest answer, and the message timeout "
        "of ext_proc above max_hold_seconds. docs/gateways.md has both for each gateway.",
    ),
    _Cause(
        "gateway-limits",
        ("overflow",),
        "refused by a circuit breaker of the gateway",
        "Envoy's default is 1,024 requests and connections to a cluster, and streamed answers "
        "occupy them for long.",
        "Raise max_requests, max_connections and max_pending_requests of the cluster of the pods.",
    ),
    _Cause(
        "gateway-connections",
        ("connection_termination", "connection_failure"),
        "lost because the connection to the pod ended",
        "vLLM closes idle connections after 5 s. A gateway that reuses them later loses requests: "
        "24 of 1,350 in a measurement, and none with an idle timeout of 3 to 4 s.",
        "Set the idle timeout of the cluster of the pods to 3 s, and retry on "
        "reset-before-request and connect-failure.",
    ),
)


def faults(facts: Facts) -> Iterator[Finding]:
    """Find what the router noticed about its gateway."""
    found = facts.readiness.get("gateway_faults")
    for fault in found if isinstance(found, list) else ():
        text = str(fault)
        what, _, rest = text.partition("; ")
        why, _, fix = rest.rpartition("; ")
        yield Finding(
            "gateway-faults",
            Severity.ERROR,
            f"{what[:1].upper()}{what[1:]}.",
            f"{why[:1].upper()}{why[1:]}." if why else "The router sees less than it needs.",
            f"{fix[:1].upper()}{fix[1:]}." if fix else "See docs/gateways.md.",
        )


def ended_by_envoy(facts: Facts) -> Iterator[Finding]:
    """Find requests that Envoy ended itself, by cause."""
    for cause in _CAUSES:
        number = _number(facts.details, cause.parts)
        if number:
            yield Finding(
                cause.check,
                Severity.WARNING,
                f"{counted(number, 'request')} of the last abnormal ones {cause.what}.",
                cause.why,
                cause.fix,
            )


def cut_holds(facts: Facts) -> Iterator[Finding]:
    """Find holds that always end after the same time, as those of a gateway with a timeout do.

    Envoy ignores a held request's wish for more time than its ``max_message_timeout``. The stream
    then ends like that of a client that leaves.
    """
    held = sorted(facts.given_up)
    longest = max((router.max_hold_seconds for router in facts.routers), default=0.0)
    for first, last in zip(held, held[_CUTS - 1 :], strict=False):
        if first >= _CUT_SECONDS and last - first <= _CUT_SPREAD_SECONDS and last < longest:
            alike = [each for each in held if 0 <= each - first <= _CUT_SPREAD_SECONDS]
            yield Finding(
                "gateway-holds",
                Severity.WARNING,
                f"{counted(len(alike), 'request')} that were held were given up after "
                f"{first:.1f} s, all of them.",
                "A gateway whose message timeout ends before the hold sends the request to any "
                "pod, or refuses it. Clients with a timeout of that length look the same.",
                "Set max_message_timeout of ext_proc above max_hold_seconds + 2 s "
                "(docs/envoy.md). envoy-config prints it for the settings that it gets, so give it "
                "those of the router. Or set max_hold_seconds below that time.",
            )
            return


def refused(facts: Facts) -> Iterator[Finding]:
    """Find streams, connections and bodies over the router's own limits."""
    for metric, what, setting in (
        ("lora_router_refused_streams_total", "stream", "grpc_max_streams"),
        ("lora_router_refused_connections_total", "connection", "grpc_max_connections"),
        ("lora_router_refused_bodies_total", "request bodies", "max_buffered_bytes"),
    ):
        number = int(facts.total(metric))
        if number:
            noun = counted(number, what, "request bodies" if " " in what else "")
            yield Finding(
                "limits-reached",
                Severity.WARNING,
                f"The router refused {noun} since its start, because {setting} was reached.",
                "Clients got errors.",
                f"Raise {setting}, or add routers.",
            )


def _number(details: Mapping[str, int], parts: tuple[str, ...]) -> int:
    return sum(
        number for detail, number in details.items() if any(part in detail for part in parts)
    )


CHECKS = (faults, ended_by_envoy, cut_holds, refused)
