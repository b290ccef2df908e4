"""The ports of a pod: where its servers take requests, and where their metrics are.

Without an InferencePool, the first of these that exists says the ports of requests: the
annotation ``lora-router/ports``, the label ``model.aibrix.ai/port``, the container port with a
name, the default.

The ports of an ``InferencePool`` are those of all its pods. A pod leaves out the ports on which it
runs no server with the annotation ``inference.networking.k8s.io/active-ports``, as in the endpoint
pickers of the Gateway API Inference Extension.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from lora_router.discovery.pod_object import (
    ACTIVE_PORTS_ANNOTATION,
    METRIC_PORT_LABEL,
    METRIC_PORTS_ANNOTATION,
    PORT_LABEL,
    PORTS_ANNOTATION,
    Annotations,
    Container,
    PodObject,
    PodSpec,
)
from lora_router.whole_numbers import is_port

MAX_PORTS = 32
"""Ports of one pod. Each is a pod of the fleet, with series of metrics of its own."""
_LONGEST_TEXT = 6 * MAX_PORTS
"""Length of an annotation with as many ports."""
_NO_ANNOTATIONS = Annotations()


@dataclass(frozen=True, slots=True)
class PortRules:
    """The ports of pods that do not name their own, or of all pods of an InferencePool."""

    port_name: str = "http"
    """Use the container port with this name, if there is one."""
    port: int = 8000
    """Use this port otherwise."""
    pool: tuple[int, ...] = ()
    """The ports of an InferencePool. What pods say of their ports of requests is not used then,
    since the gateway forwards to these only."""


@dataclass(frozen=True, slots=True)
class ServerPorts:
    """The ports of one server in a pod."""

    port: int
    metrics_port: int
    rank: int | None
    """Which of several servers; ``None``: the pod has one."""


def pod_ports(found: PodObject, rules: PortRules, problems: list[str]) -> list[ServerPorts]:
    """Return the ports of each server in a pod.

    Args:
        found: The pod.
        rules: Which ports are used if the pod names none.
        problems: Gets a line for each label or annotation that cannot be used.
    """
    labels = found.metadata.labels or {}
    annotations = found.metadata.annotations or _NO_ANNOTATIONS
    active = None
    if rules.pool:
        ports = rules.pool
        active = _list(annotations.active_ports, ACTIVE_PORTS_ANNOTATION, "all of them", problems)
    else:
        ports = _list(annotations.ports, PORTS_ANNOTATION, "the default", problems) or (
            _port(labels, PORT_LABEL, _named_port(found.spec, rules), problems),
        )
    of_metrics = _metrics_ports(labels, annotations, ports, problems)
    return [
        ServerPorts(port, metrics_port, rank if len(ports) > 1 else None)
        for rank, (port, metrics_port) in enumerate(zip(ports, of_metrics, strict=True))
        if active is None or port in active
    ]


def _metrics_ports(
    labels: Mapping[str, str],
    annotations: Annotations,
    ports: Sequence[int],
    problems: list[str],
) -> Sequence[int]:
    listed = _list(annotations.metric_ports, METRIC_PORTS_ANNOTATION, "none of them", problems)
    if listed is not None:
        if len(listed) == len(ports):
            return listed
        problems.append(
            f"annotation {METRIC_PORTS_ANNOTATION} must have as many ports as the pod has for "
            f"requests, {len(ports)}; each of these is used"
        )
    elif METRIC_PORT_LABEL in labels:
        if len(ports) == 1:
            return (_port(labels, METRIC_PORT_LABEL, ports[0], problems),)
        problems.append(
            f"label {METRIC_PORT_LABEL} is not used for a pod with several ports: set the "
            f"annotation {METRIC_PORTS_ANNOTATION}; each port of requests is used"
        )
    return ports


def _named_port(spec: PodSpec, rules: PortRules) -> int:
    for container in running_containers(spec):
        for port in container.ports or ():
            if port.name == rules.port_name and port.protocol == "TCP" and port.container_port:
                return port.container_port
    return rules.port


def running_containers(spec: PodSpec) -> Iterator[Container]:
    """Yield what runs as long as the pod: its containers, then its native sidecars."""
    sidecars = (each for each in spec.init_containers or () if each.restart_policy == "Always")
    return chain(spec.containers or (), sidecars)


def _list(
    text: str | None, annotation: str, instead: str, problems: list[str]
) -> tuple[int, ...] | None:
    """Return the ports that an annotation lists; ``None``: there is none that can be used."""
    if text is None:
        return None
    if len(text) <= _LONGEST_TEXT:
        items = [item.strip() for item in text.split(",")]
        ports = tuple(int(item) for item in items if is_port(item))
        if len(ports) == len(items) == len(set(ports)):
            return ports
    problems.append(
        f"annotation {annotation}={text[:60]!r} must be up to {MAX_PORTS} different ports, joined "
        f"by commas; {instead} is used"
    )
    return None


def _port(labels: Mapping[str, str], label: str, default: int, problems: list[str]) -> int:
    text = labels.get(label)
    if text is None:
        return default
    if is_port(text):
        return int(text)
    problems.append(f"label {label}={text!r} must be a port from 1 to 65535; {default} is used")
    return default
