"""Decodes Kubernetes Pod objects.

Only the fields that the router needs are decoded. Sources: the Pod of the core/v1 API, and AIBrix's
labels ``model.aibrix.ai/*`` (its ``pkg/constants``): ``name`` is the base model, ``port`` the port
of requests, ``metric-port`` the port of ``/metrics``, ``engine`` the model server.
"""

import msgspec

MODEL_LABEL = "model.aibrix.ai/name"
PORT_LABEL = "model.aibrix.ai/port"
METRIC_PORT_LABEL = "model.aibrix.ai/metric-port"
ENGINE_LABEL = "model.aibrix.ai/engine"
MAX_CPU_LORAS_LABEL = "lora-router/max-cpu-loras"
PORTS_ANNOTATION = "lora-router/ports"
METRIC_PORTS_ANNOTATION = "lora-router/metric-ports"
SCHEME_ANNOTATION = "lora-router/scheme"
METRICS_PATH_ANNOTATION = "lora-router/metrics-path"
MODELS_PATH_ANNOTATION = "lora-router/models-path"
ACTIVE_PORTS_ANNOTATION = "inference.networking.k8s.io/active-ports"


class Annotations(
    msgspec.Struct,
    frozen=True,
    rename={
        "ports": PORTS_ANNOTATION,
        "metric_ports": METRIC_PORTS_ANNOTATION,
        "active_ports": ACTIVE_PORTS_ANNOTATION,
        "scheme": SCHEME_ANNOTATION,
        "metrics_path": METRICS_PATH_ANNOTATION,
        "models_path": MODELS_PATH_ANNOTATION,
    },
):
    """The annotations that the router reads. Others may be long, and are not decoded."""

    ports: str | None = None
    metric_ports: str | None = None
    active_ports: str | None = None
    scheme: str | None = None
    metrics_path: str | None = None
    models_path: str | None = None


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """``metadata`` of an object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: Annotations | None = None
    deletion_timestamp: str | None = None


class ContainerPort(msgspec.Struct, frozen=True, rename="camel"):
    """One of a container's ``ports``."""

    container_port: int = 0
    name: str = ""
    protocol: str = "TCP"


class EnvVar(msgspec.Struct, frozen=True):
    """One of a container's ``env``."""

    name: str = ""
    value: str | None = None
    """``None``: it is empty, or comes from elsewhere (``valueFrom``)."""


class Container(msgspec.Struct, frozen=True, rename="camel"):
    """One of ``spec.containers`` or ``spec.initContainers``."""

    name: str = ""
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[EnvVar] | None = None
    ports: list[ContainerPort] | None = None
    restart_policy: str | None = None
    """``Always``: an init container that runs as long as the pod, a native sidecar."""


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    """``spec`` of a pod."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None


class Condition(msgspec.Struct, frozen=True):
    """One of ``status.conditions``."""

    type: str = ""
    status: str = ""


class PodIp(msgspec.Struct, frozen=True):
    """One of ``status.podIPs``."""

    ip: str = ""


class PodStatus(msgspec.Struct, frozen=True):
    """``status`` of a pod."""

    phase: str = ""
    conditions: list[Condition] | None = None
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: list[PodIp] | None = msgspec.field(default=None, name="podIPs")


class PodObject(msgspec.Struct, frozen=True):
    """A pod as the API server returns it."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    @property
    def full_name(self) -> str:
        """``namespace/name``, the pod's name in the fleet."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
