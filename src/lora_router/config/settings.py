"""Every setting: its name, its default, what it means and what it may be.

Where they come from, from weakest to strongest: the defaults here, a YAML file, the environment
(``LORA_ROUTER_`` and the name in capitals; for four of them AIBrix's name too), flags.
``lora_router.config.sources`` reads those and says what is wrong with them.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lora_router.routing.selector import SelectorError, parse_selector

ENV_PREFIX = "LORA_ROUTER_"

AIBRIX_NAMES = {
    "AIBRIX_LORA_AFFINITY_THRESHOLD": "lora_affinity_threshold",
    "ROUTING_ALGORITHM": "algorithm",
    "AIBRIX_POD_METRIC_REFRESH_INTERVAL_MS": "pod_metric_refresh_interval_ms",
    "AIBRIX_GRPC_MAX_MESSAGE_SIZE_BYTES": "grpc_max_message_size_bytes",
}
"""Environment variables of AIBrix's gateway plugin, and the settings they stand for."""

MESSAGE_ROOM_BYTES = 64 * 1024
"""What a gRPC message holds beside a piece of a body, rounded up generously."""

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TOKEN = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


def _listed(value: object) -> object:
    """Take ``a,b`` for a list, as the environment and flags can only hold text."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


def _mapped(value: object) -> object:
    """Take ``a=1,b=2`` for a mapping."""
    if isinstance(value, str):
        pairs = [item.partition("=") for item in value.split(",") if item.strip()]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError("must be name=value,name=value")
        return {key.strip(): text.strip() for key, _, text in pairs}
    return value


def _path(value: str) -> str:
    if not value.startswith("/") or "?" in value or not value.isprintable():
        raise ValueError("must begin with a slash and have no query")
    return value


def _header(value: object) -> object:
    if not isinstance(value, str) or _TOKEN.fullmatch(value.lower()) is None:
        raise ValueError("must be a header's name")
    return value.lower()


def _selector(value: str) -> str:
    try:
        parse_selector(value)
    except SelectorError as error:
        raise ValueError(str(error)) from None
    return value


def _namespace(value: str) -> str:
    if _DNS_LABEL.fullmatch(value) is None:
        raise ValueError("must be a namespace's name")
    return value


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise ValueError("must be host:port")
    return value


Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]
Interval = Annotated[float, Field(gt=0, le=86400, allow_inf_nan=False)]
HeaderName = Annotated[str, BeforeValidator(_header)]
Namespace = Annotated[str, AfterValidator(_namespace)]
UrlPath = Annotated[str, AfterValidator(_path)]
HostAndPort = Annotated[str, AfterValidator(_host_and_port)]


class Settings(BaseSettings):
    """What is in force. ``lora-router config`` prints it."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        extra="forbid",
        frozen=True,
    )

    endpoints: Path | None = Field(
        None,
        description="YAML file that lists the pods. Without it they come from Kubernetes.",
        json_schema_extra={"allowed": "the path of a file"},
    )
    kubernetes_namespaces: Annotated[list[Namespace], BeforeValidator(_listed)] = Field(
        default_factory=list,
        description="Namespaces whose pods are used; none given: all.",
        json_schema_extra={"allowed": "names of namespaces, joined by commas"},
    )
    kubernetes_selector: Annotated[str, AfterValidator(_selector)] = Field(
        "model.aibrix.ai/name",
        description="Which pods: a label selector. The default takes pods that have the label.",
        json_schema_extra={"allowed": "a Kubernetes label selector"},
    )
    kubernetes_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        8000,
        description="Port of a pod with neither the label model.aibrix.ai/port nor a container "
        "port of the name below.",
        json_schema_extra={"allowed": "a port, from 1 to 65535"},
    )
    kubernetes_port_name: Annotated[str, Field(min_length=1, max_length=15)] = Field(
        "http",
        description="Name of the container port that serves.",
        json_schema_extra={"allowed": "a container port's name, 1 to 15 characters"},
    )
    kubernetes_kubeconfig: Path | None = Field(
        None,
        description="Credentials for the API server. Without it: the pod's service account, else "
        "$KUBECONFIG, else ~/.kube/config.",
        json_schema_extra={"allowed": "the path of a kubeconfig file"},
    )
    kubernetes_context: str | None = Field(
        None,
        description="Which context of the kubeconfig. Default: its current one.",
        json_schema_extra={"allowed": "a context's name"},
    )
    kubernetes_watch_seconds: int = Field(
        30,
        ge=1,
        le=3600,
        description="A watch is ended and begun again after this time: how long a silent API "
        "server is taken for a quiet one (10 s are added).",
        json_schema_extra={"allowed": "a whole number from 1 to 3600"},
    )
    algorithm: str = Field(
        "lora-placement",
        description="What picks the pod when a request does not say.",
        json_schema_extra={"allowed": "the name of an installed algorithm"},
    )
    algorithm_options: Annotated[dict[str, str], BeforeValidator(_mapped)] = Field(
        default_factory=dict,
        description="Options of algorithms: adapter_load_seconds, shuffle_shard_k, or what one "
        "from outside takes.",
        json_schema_extra={"allowed": "name=value,name=value"},
    )
    lora_affinity_threshold: float = Field(
        0.999,
        ge=0,
        le=1,
        description="lora-affinity: the probability of a pod that has the adapter over one that "
        "has room. Lower: hot adapters spread sooner, more loads.",
        json_schema_extra={"allowed": "a number between 0 and 1"},
    )
    default_model: str | None = Field(
        None,
        description="Model of requests that name none.",
        json_schema_extra={"allowed": "a model's name"},
    )
    inference_paths: Annotated[list[UrlPath], BeforeValidator(_listed)] = Field(
        default_factory=list,
        description="Further paths whose JSON body names a model.",
        json_schema_extra={"allowed": "paths, each beginning with a slash, joined by commas"},
    )
    max_body_bytes: int = Field(
        32 * 1024 * 1024,
        ge=1024,
        description="Longest request body; a longer one is answered with 413.",
        json_schema_extra={
            "allowed": "a number of bytes, at least 1024, and 65536 less than a gRPC message's"
        },
    )
    max_hold_seconds: Seconds = Field(
        30.0,
        description="Longest time that an algorithm may hold a request in the router. 0: never.",
        json_schema_extra={"allowed": "seconds, from 0 to 86400"},
    )

    transport: Literal["lean", "grpcio"] = Field(
        "lean",
        description="What carries Envoy's calls: lean, this service's own gRPC server, or grpcio, "
        "the generic one, which takes some ten times the CPU time.",
        json_schema_extra={"allowed": "one of lean, grpcio"},
    )
    grpc_host: str = Field(
        "0.0.0.0",  # noqa: S104 -- Envoy is on another host, as a rule
        description="Address for Envoy's calls.",
        json_schema_extra={"allowed": "an address of this host"},
    )
    grpc_port: Port = Field(
        50052,
        description="Port for Envoy's calls.",
        json_schema_extra={"allowed": "a port, from 0 (any) to 65535"},
    )
    grpc_max_message_size_bytes: int = Field(
        64 * 1024 * 1024,
        ge=128 * 1024,
        le=2**31 - 1,
        description="Longest gRPC message taken from Envoy.",
        json_schema_extra={"allowed": "a number of bytes, from 131072 to 2147483647"},
    )
    grpc_tls_cert_file: Path | None = Field(
        None,
        description="Certificate for Envoy's calls, with its chain; without it they are in the "
        "clear.",
        json_schema_extra={"allowed": "the path of a PEM file"},
    )
    grpc_tls_key_file: Path | None = Field(
        None,
        description="The certificate's key.",
        json_schema_extra={"allowed": "the path of a PEM file"},
    )
    grpc_tls_client_ca_file: Path | None = Field(
        None,
        description="Authorities, one of which must have signed a certificate that Envoy shows "
        "(mutual TLS).",
        json_schema_extra={"allowed": "the path of a PEM file"},
    )
    admin_host: str = Field(
        "127.0.0.1",
        description="Address of /healthz, /readyz and /metrics.",
        json_schema_extra={"allowed": "an address of this host"},
    )
    admin_port: Port = Field(
        8080,
        description="Port of /healthz, /readyz and /metrics.",
        json_schema_extra={"allowed": "a port, from 0 (any) to 65535"},
    )
    startup_timeout_seconds: Seconds = Field(
        5.0,
        description="Longest wait for the first scrape of all pods before saying 'ready'.",
        json_schema_extra={"allowed": "seconds, from 0 to 86400"},
    )
    drain_delay_seconds: Seconds = Field(
        0.0,
        description="After SIGTERM: time of being not ready and still serving.",
        json_schema_extra={"allowed": "seconds, from 0 to 86400"},
    )
    drain_timeout_seconds: Seconds = Field(
        30.0,
        description="After that: time for open streams to end.",
        json_schema_extra={"allowed": "seconds, from 0 to 86400"},
    )

    pod_metric_refresh_interval_ms: int = Field(
        1000,
        ge=10,
        le=3_600_000,
        description="Milliseconds between two scrapes of a pod's /metrics.",
        json_schema_extra={"allowed": "a whole number from 10 to 3600000"},
    )
    metrics_max_age_seconds: Interval = Field(
        15.0,
        description="Age at which a snapshot counts for nothing.",
        json_schema_extra={"allowed": "seconds, above 0 and up to 86400"},
    )
    models_refresh_interval_seconds: Interval = Field(
        10.0,
        description="Seconds between two reads of a pod's /v1/models.",
        json_schema_extra={"allowed": "seconds, above 0 and up to 86400"},
    )
    scrape_timeout_seconds: Interval = Field(
        2.0,
        description="Longest time for one read of a pod.",
        json_schema_extra={"allowed": "seconds, above 0 and up to 86400"},
    )
    scrape_concurrency: int = Field(
        64,
        ge=1,
        le=10_000,
        description="Pods read at the same time.",
        json_schema_extra={"allowed": "a whole number from 1 to 10000"},
    )
    pod_api_key: SecretStr | None = Field(
        None,
        description="Sent to pods as 'Authorization: Bearer' when /v1/models is read.",
        json_schema_extra={"allowed": "the key that vLLM was started with"},
    )

    target_pod_header: HeaderName = Field(
        "target-pod",
        description="Header with the pod's endpoint.",
        json_schema_extra={"allowed": "a header's name"},
    )
    destination_header: HeaderName = Field(
        "x-gateway-destination-endpoint",
        description="Header, and key in dynamic metadata, of the endpoint-picker protocol.",
        json_schema_extra={"allowed": "a header's name"},
    )
    strategy_header: HeaderName = Field(
        "routing-strategy",
        description="Header that chooses the algorithm.",
        json_schema_extra={"allowed": "a header's name"},
    )
    filter_header: HeaderName = Field(
        "external-filter",
        description="Header with a label selector.",
        json_schema_extra={"allowed": "a header's name"},
    )
    model_header: HeaderName = Field(
        "model",
        description="Header that tells pods the model.",
        json_schema_extra={"allowed": "a header's name"},
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="How much to log.",
        json_schema_extra={"allowed": "one of debug, info, warning, error"},
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="How to write logs.", json_schema_extra={"allowed": "one of text, json"}
    )

    envoy_listen_host: str = Field(
        "0.0.0.0",  # noqa: S104 -- it is the gateway
        description="envoy-config: address for clients.",
        json_schema_extra={"allowed": "an IP address"},
    )
    envoy_listen_port: Port = Field(
        10080,
        description="envoy-config: port for clients.",
        json_schema_extra={"allowed": "a port, from 0 to 65535"},
    )
    envoy_admin_port: Port = Field(
        9901,
        description="envoy-config: port of Envoy's admin pages, on 127.0.0.1.",
        json_schema_extra={"allowed": "a port, from 0 to 65535"},
    )
    envoy_router_address: HostAndPort | None = Field(
        None,
        description="envoy-config: where Envoy reaches this service. Default: 127.0.0.1 and "
        "grpc_port.",
        json_schema_extra={"allowed": "host:port"},
    )
    envoy_router_ca_file: Path | None = Field(
        None,
        description="envoy-config: authorities, one of which signed the router's certificate; "
        "needed with grpc_tls_cert_file.",
        json_schema_extra={"allowed": "the path of a PEM file where Envoy runs"},
    )
    envoy_router_name: str | None = Field(
        None,
        description="envoy-config: the name in the router's certificate. Default: the host of "
        "envoy_router_address.",
        json_schema_extra={"allowed": "a DNS name"},
    )
    envoy_client_cert_file: Path | None = Field(
        None,
        description="envoy-config: the certificate that Envoy shows; needed with "
        "grpc_tls_client_ca_file.",
        json_schema_extra={"allowed": "the path of a PEM file where Envoy runs"},
    )
    envoy_client_key_file: Path | None = Field(
        None,
        description="envoy-config: that certificate's key.",
        json_schema_extra={"allowed": "the path of a PEM file where Envoy runs"},
    )
    envoy_message_timeout_seconds: Interval = Field(
        5.0,
        description="envoy-config: how long Envoy waits for each answer.",
        json_schema_extra={"allowed": "seconds, above 0 and up to 86400"},
    )
    envoy_body_mode: Literal["buffered", "streamed", "full-duplex"] = Field(
        "buffered",
        description="envoy-config: how Envoy sends request bodies. Streamed saves a round trip, "
        "but a client must then send its body within envoy_message_timeout_seconds.",
        json_schema_extra={"allowed": "one of buffered, streamed, full-duplex"},
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        room = self.grpc_max_message_size_bytes - MESSAGE_ROOM_BYTES
        if self.max_body_bytes > room:
            if "max_body_bytes" in self.model_fields_set:
                raise ValueError(
                    f"max_body_bytes={self.max_body_bytes}: must be at most {room}, which is "
                    f"{MESSAGE_ROOM_BYTES} less than grpc_max_message_size_bytes"
                )
            # Only the message limit was set, and lower: the default follows.
            object.__setattr__(self, "max_body_bytes", room)
        certificate, key = self.grpc_tls_cert_file, self.grpc_tls_key_file
        if (certificate is None) != (key is None):
            raise ValueError("grpc_tls_cert_file and grpc_tls_key_file: one needs the other")
        if self.grpc_tls_client_ca_file is not None and certificate is None:
            raise ValueError("grpc_tls_client_ca_file: needs grpc_tls_cert_file")
        if (self.envoy_client_cert_file is None) != (self.envoy_client_key_file is None):
            raise ValueError(
                "envoy_client_cert_file and envoy_client_key_file: one needs the other"
            )
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
                raise ValueError(f"two headers are called {name!r}: all names must differ")
        return self
