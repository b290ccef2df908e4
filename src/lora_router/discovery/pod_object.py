"""Decodes Kubernetes Pod objects, and translates them to pods of the fleet.

Only the fields that the router needs are decoded. Sources: the Pod of the core/v1 API, and AIBrix's
labels ``model.aibrix.ai/*`` (its ``pkg/constants``): ``name`` is the base model, ``port`` the port
of requests, ``metric-port`` the port of ``/metrics``, ``engine`` the model server.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from lora_router.discovery.pods_list import ENGINES
from lora_router.fleet.pod import Pod

MODEL_LABEL = "model.aibrix.ai/name"
PORT_LABEL = "model.aibrix.ai/port"
METRIC_PORT_LABEL = "model.aibrix.ai/metric-port"
ENGINE_LABEL = "model.aibrix.ai/engine"

_OVER = frozenset(("Succeeded", "Failed"))


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """``metadata`` of an object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class ContainerPort(msgspec.Struct, frozen=True, rename="camel"):
    """One of a container's ``ports``."""

    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"


class Container(msgspec.Struct, frozen=True):
    """One of ``spec.containers``."""

    ports: list[ContainerPort] | None = None


class PodSpec(msgspec.Struct, frozen=True):
    """``spec`` of a pod."""

    containers: list[Container] | None = None


class Condition(msgspec.Struct, frozen=True):
    """One of ``status.conditions``."""

    type: str = ""
    status: str = ""


class PodStatus(msgspec.Struct, frozen=True):
    """``status`` of a pod."""

    phase: str = ""
    conditions: list[Condition] | None = None
    pod_ip: str = msgspec.field(default="", name="podIP")


class PodObject(msgspec.Struct, frozen=True):
    """A pod as the API server returns it."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    @property
    def full_name(self) -> str:
        """``namespace/name``, the pod's name in the fleet."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


@dataclass(frozen=True, slots=True)
class PortRules:
    """The port of a pod whose labels do not name one."""

    port_name: str = "http"
    """Use the container port with this name, if there is one."""
    port: int = 8000
    """Use this port otherwise."""


def to_pod(found: PodObject, rules: PortRules) -> tuple[Pod | None, tuple[str, ...]]:
    """Translate a pod.

    Returns:
        The pod, or ``None`` while it has no address or after its containers have ended; and one
        line for each problem of its labels, which names the default that is used instead.
    """
    status = found.status
    if not status.pod_ip or status.phase in _OVER:
        return None, ()
    try:
        host = _host(status.pod_ip)
    except ValueError:
        return None, (f"status.podIP={status.pod_ip!r} is not an IP address; the pod is ignored",)
    labels = found.metadata.labels or {}
    problems: list[str] = []
    port = _port(labels, PORT_LABEL, _named_port(found.spec, rules), problems)
    metrics_port = _port(labels, METRIC_PORT_LABEL, port, problems)
    engine = labels.get(ENGINE_LABEL)
    if engine is not None and engine not in ENGINES:
        problems.append(
            f"label {ENGINE_LABEL}={engine!r} must be one of {', '.join(ENGINES)}; "
            "the engine is detected from its metrics page"
        )
        engine = None
    address = f"{host}:{port}"
    pod = Pod(
        name=found.full_name,
        address=address,
        metrics_url=f"http://{host}:{metrics_port}/metrics",
        models_url=f"http://{address}/v1/models",
        ready=_is_routable(found),
        base_model=labels.get(MODEL_LABEL) or None,
        engine=engine,
        uid=found.metadata.uid,
        labels=labels,
    )
    return pod, tuple(problems)


def _is_routable(found: PodObject) -> bool:
    if found.metadata.deletion_timestamp is not None:
        return False
    conditions = found.status.conditions or ()
    return any(item.type == "Ready" and item.status == "True" for item in conditions)


def _host(ip: str) -> str:
    address = ipaddress.ip_address(ip)
    return f"[{address}]" if address.version == 6 else str(address)


def _named_port(spec: PodSpec, rules: PortRules) -> int:
    for container in spec.containers or ():
        for port in container.ports or ():
            if port.name == rules.port_name and port.protocol == "TCP" and port.container_port:
                return port.container_port
    return rules.port


def _port(labels: Mapping[str, str], label: str, default: int, problems: list[str]) -> int:
    text = labels.get(label)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536:
        return int(text)
    problems.append(f"label {label}={text!r} must be a port from 1 to 65535; {default} is used")
    return default
