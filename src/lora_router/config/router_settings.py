"""The settings of the router itself: pods, algorithms, requests, ports, scrapes, headers, logs."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from lora_router.config import kinds
from lora_router.config.kinds import Allowed


class RouterSettings(BaseModel):
    """Settings of the router itself."""

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
    kubernetes_port_name: kinds.PortName = Field(
        "http", description="Name of the container port that serves requests."
    )
    kubernetes_ip_family: Literal["any", "ipv4", "ipv6"] = Field(
        "any",
        description="Which address of a pod with several is used. any: the first, which is of the "
        "cluster's main family. It must be the one by which the gateway knows the pod.",
    )
    kubernetes_kubeconfig: kinds.OwnKubeconfig = Field(
        None,
        description="Kubeconfig for the API server. Without it: the pod's service account, else "
        "$KUBECONFIG, else ~/.kube/config.",
    )
    kubernetes_context: kinds.ContextName = Field(
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
    default_model: kinds.ModelName = Field(None, description="Model of a request that names none.")
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
    max_hold_seconds: kinds.Hold = Field(
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

    max_buffered_bytes: Annotated[
        kinds.Whole, Allowed("a number of bytes, at least twice grpc_max_message_size_bytes")
    ] = Field(
        256 * 1024 * 1024,
        le=2**40,
        description="Maximum memory for unfinished and collected request bodies, of all "
        "connections. A body that does not fit waits in flow control, or is refused with 503.",
    )

    transport: kinds.Transport = Field(
        "builtin",
        description="gRPC server for Envoy's calls: builtin, this project's own, or grpcio, the "
        "generic one, which takes about ten times the CPU time.",
        json_schema_extra={"enum": ["builtin", "grpcio", "lean"]},
    )
    grpc_host: kinds.Address = Field(
        "::",
        description="Address that listens for Envoy's calls. :: stands for all addresses, IPv6 and "
        "IPv4; without IPv6 in the kernel, for those of IPv4.",
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
    grpc_max_connections: kinds.Whole = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Maximum number of connections from gateways. One more is closed at once.",
    )
    grpc_max_streams: kinds.Whole = Field(
        100_000,
        ge=1,
        le=10_000_000,
        description="Maximum number of open streams of all connections. One more is refused.",
    )
    grpc_tls_cert_file: kinds.OwnPem = Field(
        None,
        description="Certificate chain of the gRPC server. Without it, Envoy's calls are not "
        "encrypted.",
    )
    grpc_tls_key_file: kinds.OwnPem = Field(None, description="Private key of that certificate.")
    grpc_tls_self_signed: bool = Field(
        False,
        description="Whether the gRPC server makes its own certificate, for gateways that use TLS "
        "and verify nothing, as InferencePool gateways do by default.",
    )
    grpc_tls_client_ca_file: kinds.OwnPem = Field(
        None,
        description="Certificate authorities for client certificates. When it is set, Envoy must "
        "present a certificate that one of them signed (mutual TLS).",
    )
    admin_host: kinds.Address = Field(
        "127.0.0.1",
        description="Address that serves /healthz, /readyz, /metrics, the page and /debug. :: as "
        "for grpc_host.",
    )
    admin_port: kinds.PortOrAny = Field(
        8080, description="Port that serves /healthz, /readyz, /metrics, the page and /debug."
    )
    loop_stall_seconds: kinds.Interval = Field(
        0.5,
        description="A stall of the event loop that is longer is logged with the code that "
        "caused it, and counted.",
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
        250,
        ge=10,
        le=3_600_000,
        description="Interval between two scrapes of a pod's /metrics, in milliseconds, by all "
        "routers together that share scrapes. A router that reads more than 400 pages in a second "
        "stretches the interval, up to 1000: 400 reads take about an eighth of a core.",
    )
    scrape_sharing: bool = Field(
        True,
        description="Whether peers share scrapes: each pod is read by one router, which tells the "
        "others. Otherwise each router reads all pods.",
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
        64,
        ge=1,
        le=10_000,
        description="Maximum number of pods that are read at the same time. Reads that take longer "
        "than 0.2 s do not count; there may be 8 times as many of them.",
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
    pool_header: kinds.OptionalHeaderName = Field(
        None,
        description="Header with the namespace and the base model (label model.aibrix.ai/name) of "
        "the picked pod, as NAMESPACE/MODEL. A gateway can choose among several Services by it. "
        "Default: not set.",
    )

    conformance_header: bool = Field(
        False,
        description="For conformance tests of gateways only: whether a client can choose pods by "
        "the header test-epp-endpoint-selection.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Format of log lines.")
