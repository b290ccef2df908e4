"""The settings of the Envoy bootstrap that ``envoy-config`` prints."""

from typing import Literal

from pydantic import BaseModel, Field

from lora_router.config import kinds


class EnvoySettings(BaseModel):
    """Settings of ``envoy-config``."""

    envoy_listen_host: kinds.IpAddress = Field(
        "::",
        description="envoy-config: address that listens for clients. :: stands for all addresses, "
        "IPv6 and IPv4; if envoy-config runs without IPv6 in the kernel, for those of IPv4.",
    )
    envoy_listen_port: kinds.PortOrAny = Field(
        10080, description="envoy-config: port that listens for clients."
    )
    envoy_admin_port: kinds.PortOrAny = Field(
        9901, description="envoy-config: port of Envoy's admin pages, on 127.0.0.1."
    )
    envoy_router_address: kinds.HostsAndPorts = Field(
        None,
        description="envoy-config: where Envoy reaches the routers. A DNS name stands for all "
        "addresses that it resolves to. Default: 127.0.0.1 and grpc_port.",
    )
    envoy_router_ca_file: kinds.EnvoysPem = Field(
        None,
        description="envoy-config: certificate authorities for the router's certificate. Required "
        "with grpc_tls_cert_file.",
    )
    envoy_router_name: kinds.DnsName = Field(
        None,
        description="envoy-config: DNS name in the routers' certificates. Default: the hosts of "
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
    envoy_pod_ca_file: kinds.EnvoysPem = Field(
        None,
        description="envoy-config: certificate authorities for the pods' certificates. Required "
        "with pod_scheme=https, unless pod_tls_skip_verify is set. Envoy expects the name "
        "pod_tls_server_name in them, if that is set.",
    )
    envoy_pod_cert_file: kinds.EnvoysPem = Field(
        None, description="envoy-config: certificate that Envoy presents to pods (mutual TLS)."
    )
    envoy_pod_key_file: kinds.EnvoysPem = Field(
        None, description="envoy-config: private key of that certificate."
    )
    envoy_message_timeout_seconds: kinds.MessageTimeout = Field(
        5.0, description="envoy-config: how long Envoy waits for each answer of the router."
    )
    envoy_body_mode: Literal["buffered", "streamed", "full-duplex"] = Field(
        "buffered",
        description="envoy-config: how Envoy sends request bodies. streamed saves a round trip, "
        "but then a client must send a body under 64 KB within envoy_message_timeout_seconds.",
    )
    envoy_pods: Literal["override-host", "original-dst"] = Field(
        "override-host",
        description="envoy-config: how Envoy finds the picked pod. override-host: among the pods "
        "that the router tells it, with a second pod to try. original-dst: at any address that "
        "the header names.",
    )
    envoy_fail_open: bool = Field(
        True,
        description="envoy-config: whether Envoy balances requests by itself while no router "
        "answers. With original-dst, such requests are answered with 503. Only in "
        "buffered mode.",
    )
    envoy_access_log: Literal["json", "off"] = Field(
        "json",
        description="envoy-config: whether Envoy writes a line of JSON to standard output for each "
        "request, with its status, its times, and the router's decision.",
    )
    envoy_pod_idle_seconds: kinds.EnvoysInterval = Field(
        3.0,
        description="envoy-config: how long an idle connection to a pod is kept. Must be shorter "
        "than the keep-alive timeout of the pods, which is 5 s for vLLM.",
    )
    envoy_max_connections: kinds.Whole = Field(
        20_000,
        ge=1,
        le=10_000_000,
        description="envoy-config: maximum number of connections of clients.",
    )
    envoy_max_heap_bytes: kinds.Whole = Field(
        4 * 1024 * 1024 * 1024,
        ge=64 * 1024 * 1024,
        le=2**40,
        description="envoy-config: heap size of Envoy. Near it, Envoy resets the requests that "
        "hold the most memory, and then refuses new ones.",
    )
