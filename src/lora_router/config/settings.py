"""Defines every setting: its name, default, meaning, and allowed values.

A ``Settings`` object holds exactly what its constructor was given, and defaults for the rest.
``lora_router.config.sources`` reads the file, the environment and the flags.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from lora_router.config import kinds
from lora_router.config.kinds import Allowed

ENV_PREFIX = "LORA_ROUTER_"

AIBRIX_NAMES = {
    "AIBRIX_LORA_AFFINITY_THRESHOLD": "lora_affinity_threshold",
    "ROUTING_ALGORITHM": "algorithm",
    "AIBRIX_POD_METRIC_REFRESH_INTERVAL_MS": "pod_metric_refresh_interval_ms",
    "AIBRIX_GRPC_MAX_MESSAGE_SIZE_BYTES": "grpc_max_message_size_bytes",
}
"""Environment variables of AIBrix's gateway plugin, and the settings that they set."""

MESSAGE_ROOM_BYTES = 64 * 1024
"""Room in a gRPC message for everything except the body, rounded up generously."""


class Settings(BaseModel):
    """The settings in force. ``lora-router config`` prints them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoints: kinds.OwnFile = Field(
        None,
        description="YAML file that lists the pods. Without it, pods come from Kubernetes.",
    )
    kubernetes_namespaces: kinds.Namespaces = Field(
        default_factory=list,
        description="Namespaces whose pods are used. Empty: all namespaces.",
    )
    kubernetes_selector: kinds.Selector = Field(
        "model.aibrix.ai/name",
        description="Label selector of the pods. The default selects pods that have the label, "
        "whatever its value.",
    )
    kubernetes_port: kinds.Port = Field(
        8000,
        description="Port of a pod that has neither the label model.aibrix.ai/port nor a "
        "container port named kubernetes_port_name.",
    )
    kubernetes_port_name: Annotated[
        str,
        Field(min_length=1, max_length=15),
        Allowed("a container port's name, 1 to 15 characters"),
    ] = Field("http", description="Name of the container port that serves requests.")
    kubernetes_kubeconfig: kinds.OwnKubeconfig = Field(
        None,
        description="Kubeconfig for the API server. Without it: the pod's service account, else "
        "$KUBECONFIG, else ~/.kube/config.",
    )
    kubernetes_context: Annotated[str | None, Allowed("a context's name")] = Field(
        None, description="Context of the kubeconfig. Default: its current context."
    )
    kubernetes_watch_seconds: kinds.Whole = Field(
        30,
        ge=1,
        le=3600,
        description="Server-side timeout of a watch, in seconds. A watch without traffic for this "
        "long plus 10 s is treated as lost.",
    )
    algorithm: Annotated[str, Allowed("the name of an installed algorithm")] = Field(
        "lora-placement",
        description="Algorithm that picks the pod of a request that does not name one.",
    )
    algorithm_options: kinds.Options = Field(
        default_factory=dict,
        description="Options of algorithms, for example adapter_load_seconds or shuffle_shard_k.",
    )
    lora_affinity_threshold: kinds.Fraction = Field(
        0.999,
        description="lora-affinity: probability of choosing a pod that has the adapter over a pod "
        "that has a free slot. A lower value spreads hot adapters sooner and loads more often.",
    )
    default_model: Annotated[str | None, Allowed("a model's name")] = Field(
        None, description="Model of a request that names none."
    )
    inference_paths: kinds.UrlPaths = Field(
        default_factory=list,
        description="Additional paths whose JSON body names a model.",
    )
    max_body_bytes: Annotated[
        kinds.Whole,
        Allowed(
            "a number of bytes, at least 1024 and at most grpc_max_message_size_bytes minus 65536"
        ),
    ] = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Maximum size of a request body. A larger body is refused with 413.",
    )
    max_hold_seconds: kinds.Seconds = Field(
        30.0,
        description="Maximum time that an algorithm may hold a request in the router. 0: no "
        "request is held.",
    )
    max_held_requests: kinds.Whole = Field(
        4096,
        ge=1,
        le=1_000_000,
        description="Maximum number of requests held in the router. One more is refused with 429.",
    )
    max_held_requests_per_model: kinds.Whole = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Maximum number of requests held for one model or adapter. One more is "
        "refused with 429.",
    )

    transport: kinds.Transport = Field(
        "builtin",
        description="gRPC server for Envoy's calls: builtin, this project's own, or grpcio, the "
        "generic one, which takes about ten times the CPU time.",
        json_schema_extra={"enum": ["builtin", "grpcio", "lean"]},
    )
    grpc_host: kinds.Address = Field(
        "0.0.0.0",  # noqa: S104 -- Envoy usually runs on another host
        description="Address that listens for Envoy's calls.",
    )
    grpc_port: kinds.PortOrAny = Field(50052, description="Port that listens for Envoy's calls.")
    grpc_max_message_size_bytes: Annotated[
        kinds.Whole, Allowed("a number of bytes, from 131072 to 2147483647")
    ] = Field(
        64 * 1024 * 1024,
        ge=128 * 1024,
        le=2**31 - 1,
        description="Maximum size of a gRPC message from Envoy.",
    )
    grpc_tls_cert_file: kinds.OwnPem = Field(
        None,
        description="Certificate chain of the gRPC server. Without it, Envoy's calls are not "
        "encrypted.",
    )
    grpc_tls_key_file: kinds.OwnPem = Field(None, description="Private key of that certificate.")
    grpc_tls_client_ca_file: kinds.OwnPem = Field(
        None,
        description="Certificate authorities for client certificates. When it is set, Envoy must "
        "present a certificate that one of them signed (mutual TLS).",
    )
    admin_host: kinds.Address = Field(
        "127.0.0.1", description="Address that serves /healthz, /readyz and /metrics."
    )
    admin_port: kinds.PortOrAny = Field(
        8080, description="Port that serves /healthz, /readyz and /metrics."
    )
    startup_timeout_seconds: kinds.Seconds = Field(
        5.0,
        description="Maximum time that readiness waits for the first scrape of all pods.",
    )
    drain_delay_seconds: kinds.Seconds = Field(
        0.0,
        description="After SIGTERM: how long the router reports not ready and still accepts "
        "requests.",
    )
    drain_timeout_seconds: kinds.Seconds = Field(
        30.0,
        description="After drain_delay_seconds: how long the router waits for open streams to end.",
    )

    pod_metric_refresh_interval_ms: kinds.Whole = Field(
        1000,
        ge=10,
        le=3_600_000,
        description="Interval between two scrapes of a pod's /metrics, in milliseconds.",
    )
    metrics_max_age_seconds: kinds.Interval = Field(
        15.0, description="Age at which a snapshot is stale and no longer used."
    )
    models_refresh_interval_seconds: kinds.Interval = Field(
        10.0, description="Interval between two reads of a pod's /v1/models, in seconds."
    )
    scrape_timeout_seconds: kinds.Interval = Field(
        2.0, description="Timeout of one read of a pod, in seconds."
    )
    scrape_concurrency: kinds.Whole = Field(
        64, ge=1, le=10_000, description="Maximum number of pods that are read at the same time."
    )
    pod_api_key: Annotated[SecretStr | None, Allowed("the key that vLLM was started with")] = Field(
        None,
        description="API key for reading /v1/models, sent as 'Authorization: Bearer'.",
    )

    target_pod_header: kinds.HeaderName = Field(
        "target-pod", description="Header with the pod's endpoint."
    )
    destination_header: kinds.HeaderName = Field(
        "x-gateway-destination-endpoint",
        description="Header, and key in dynamic metadata, of the endpoint-picker protocol.",
    )
    strategy_header: kinds.HeaderName = Field(
        "routing-strategy", description="Header in which a client names the algorithm."
    )
    filter_header: kinds.HeaderName = Field(
        "external-filter", description="Header in which a client sends a label selector."
    )
    model_header: kinds.HeaderName = Field(
        "model", description="Header in which the pod receives the model."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Format of log lines.")

    envoy_listen_host: kinds.IpAddress = Field(
        "0.0.0.0",  # noqa: S104 -- clients of a gateway are on other hosts
        description="envoy-config: address that listens for clients.",
    )
    envoy_listen_port: kinds.EnvoysPort = Field(
        10080, description="envoy-config: port that listens for clients."
    )
    envoy_admin_port: kinds.EnvoysPort = Field(
        9901, description="envoy-config: port of Envoy's admin pages, on 127.0.0.1."
    )
    envoy_router_address: kinds.HostAndPort = Field(
        None,
        description="envoy-config: where Envoy reaches the router. Default: 127.0.0.1 and "
        "grpc_port.",
    )
    envoy_router_ca_file: kinds.EnvoysPem = Field(
        None,
        description="envoy-config: certificate authorities for the router's certificate. Required "
        "with grpc_tls_cert_file.",
    )
    envoy_router_name: Annotated[str | None, Allowed("a DNS name")] = Field(
        None,
        description="envoy-config: DNS name in the router's certificate. Default: the host of "
        "envoy_router_address.",
    )
    envoy_client_cert_file: kinds.EnvoysPem = Field(
        None,
        description="envoy-config: certificate that Envoy presents to the router. Required with "
        "grpc_tls_client_ca_file.",
    )
    envoy_client_key_file: kinds.EnvoysPem = Field(
        None, description="envoy-config: private key of that certificate."
    )
    envoy_message_timeout_seconds: kinds.Interval = Field(
        5.0, description="envoy-config: how long Envoy waits for each answer of the router."
    )
    envoy_body_mode: Literal["buffered", "streamed", "full-duplex"] = Field(
        "buffered",
        description="envoy-config: how Envoy sends request bodies. streamed saves a round trip, "
        "but then a client must send its body within envoy_message_timeout_seconds.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._limit_body()
        _need_each_other(self, "grpc_tls_cert_file", "grpc_tls_key_file")
        if self.grpc_tls_client_ca_file is not None and self.grpc_tls_cert_file is None:
            raise ValueError("grpc_tls_client_ca_file: requires grpc_tls_cert_file")
        _need_each_other(self, "envoy_client_cert_file", "envoy_client_key_file")
        names = [
            self.target_pod_header,
            self.destination_header,
            self.strategy_header,
            self.filter_header,
            self.model_header,
            "x-request-id",
        ]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two headers have the name {name!r}: all names must differ")
        return self

    def _limit_body(self) -> None:
        room = self.grpc_max_message_size_bytes - MESSAGE_ROOM_BYTES
        if self.max_body_bytes <= room:
            return
        if "max_body_bytes" in self.model_fields_set:
            raise ValueError(
                f"max_body_bytes={self.max_body_bytes}: must be at most {room}: "
                f"grpc_max_message_size_bytes minus {MESSAGE_ROOM_BYTES}"
            )
        # Only the message limit was set, and below its default. The default body limit follows it.
        object.__setattr__(self, "max_body_bytes", room)


def _need_each_other(settings: Settings, one: str, other: str) -> None:
    if (getattr(settings, one) is None) != (getattr(settings, other) is None):
        raise ValueError(f"{one} and {other}: set both or neither")


def allowed(name: str) -> str:
    """Return which values a setting accepts, as a phrase that completes "must be …"."""
    return kinds.allowed_by(Settings.model_fields[name])
