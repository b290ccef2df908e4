"""Defines every setting: its name, default, meaning, and allowed values.

A ``Settings`` object holds exactly what its constructor was given, and defaults for the rest.
``lora_router.config.sources`` reads the file, the environment and the flags.
"""

from ipaddress import ip_address
from typing import Self

from pydantic import ConfigDict, model_validator

from lora_router.config import kinds
from lora_router.config.adapter_settings import AdapterSettings
from lora_router.config.envoy_settings import EnvoySettings
from lora_router.config.health_settings import HealthSettings
from lora_router.config.model_settings import ModelSettings
from lora_router.config.observation_settings import ObservationSettings
from lora_router.config.overload_settings import OverloadSettings
from lora_router.config.path_settings import PathSettings
from lora_router.config.peer_settings import PeerSettings
from lora_router.config.pod_settings import PodSettings
from lora_router.config.pool_settings import PoolSettings
from lora_router.config.replication_settings import ReplicationSettings
from lora_router.config.router_settings import RouterSettings
from lora_router.config.worker_settings import WorkerSettings
from lora_router.peering.redis_address import RedisAddress, parse_address

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


class Settings(
    EnvoySettings,
    HealthSettings,
    PeerSettings,
    ReplicationSettings,
    WorkerSettings,
    PathSettings,
    PoolSettings,
    AdapterSettings,
    ModelSettings,
    ObservationSettings,
    OverloadSettings,
    PodSettings,
    RouterSettings,
):
    """The settings in force. ``lora-router config`` prints them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._limit_body()
        self._need_room_for_one_message()
        if self.outlier_max_ejection_seconds < self.outlier_min_ejection_seconds:
            raise ValueError(
                "outlier_max_ejection_seconds: must be at least outlier_min_ejection_seconds"
            )
        if self.response_headers == "on" and not self.decisions:
            raise ValueError("response_headers: on requires decisions above 0")
        _need_each_other(self, "grpc_tls_cert_file", "grpc_tls_key_file")
        if self.grpc_tls_self_signed and self.grpc_tls_cert_file is not None:
            raise ValueError("grpc_tls_self_signed and grpc_tls_cert_file: set at most one of them")
        if self.grpc_tls_self_signed and (self.peers or self.peer_service is not None):
            raise ValueError(
                "grpc_tls_self_signed: peers cannot verify such a certificate; set "
                "grpc_tls_cert_file and grpc_tls_key_file"
            )
        if self.grpc_tls_client_ca_file is not None and self.grpc_tls_cert_file is None:
            raise ValueError("grpc_tls_client_ca_file: requires grpc_tls_cert_file")
        _need_each_other(self, "envoy_client_cert_file", "envoy_client_key_file")
        _need_each_other(self, "envoy_pod_cert_file", "envoy_pod_key_file")
        _need_each_other(self, "pod_tls_cert_file", "pod_tls_key_file")
        _exclude_each_other(self, "pod_api_key", "pod_api_key_file")
        if self.pod_tls_skip_verify and self.pod_tls_ca_file is not None:
            raise ValueError("pod_tls_skip_verify and pod_tls_ca_file: set at most one of them")
        _need_each_other(self, "peer_tls_cert_file", "peer_tls_key_file")
        self._name_models()
        self._load_adapters()
        self._authenticate_peers()
        self._allow_lease()
        self._allow_workers()
        self._allow_pool()
        names = [
            self.target_pod_header,
            self.destination_header,
            self.strategy_header,
            self.filter_header,
            self.model_header,
            self.objective_header,
            "x-request-id",
            *([self.rewrite_sticky_header] if self.rewrite_sticky_header else ()),
            *([self.model_rewrite_header] if self.model_rewrite_header else ()),
            *([self.pool_header] if self.pool_header else ()),
            *([self.tenant_header] if self.tenant_header else ()),
            *([self.priority_header] if self.priority_header else ()),
        ]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two headers have the name {name!r}: all names must differ")
        return self

    @property
    def longest_hold_seconds(self) -> float:
        """The longest time that a request waits in the router."""
        loads = self.first_use_seconds if self.loads_adapters else 0.0
        return max(self.max_hold_seconds, loads)

    @property
    def routers_name(self) -> str:
        """The name that the routers of this fleet have in common."""
        service = (self.peer_service or "").rpartition("/")[2]
        return self.lease_name or service or "lora-router"

    @property
    def has_mesh(self) -> bool:
        """Whether this router has streams to others."""
        return self.peers is not None or self.peer_service is not None

    @property
    def has_peers(self) -> bool:
        """Whether this router exchanges reports with others."""
        return self.has_mesh or self.redis_address is not None

    @property
    def redis_address(self) -> RedisAddress | None:
        """The server on which reports are published; ``None``: they are sent to each peer."""
        text = None if self.peering is None else self.peering.get_secret_value()
        return None if text is None or text == kinds.MESH else parse_address(text)

    def _name_models(self) -> None:
        for name, targets in self.model_rewrites.items():
            for target in targets:
                if target != name and target in self.model_rewrites:
                    raise ValueError(
                        f"model_rewrites: {name!r} leads to {target!r}, which is rewritten itself: "
                        "name the models that pods serve"
                    )
        if self.inference_model_rewrites and self.inference_pool is None:
            raise ValueError("inference_model_rewrites: requires inference_pool")
        if self.unknown_model == "base" and self.unknown_model_base is None:
            raise ValueError("unknown_model=base: requires unknown_model_base")
        if self.unknown_model_base is not None and self.unknown_model != "base":
            raise ValueError("unknown_model_base: requires unknown_model=base")

    def _load_adapters(self) -> None:
        if self.model_adapters and not self.adapter_sources:
            raise ValueError(
                "model_adapters: requires adapter_sources: from where those may load adapters who "
                "may create ModelAdapters"
            )
        if self.model_adapters and self.endpoints is not None:
            raise ValueError(
                "model_adapters and endpoints: set one of them: ModelAdapters are for pods of "
                "Kubernetes"
            )
        if self.adapter_move_seconds and self.adapter_update == "in-place":
            raise ValueError(
                f"adapter_move_seconds={self.adapter_move_seconds:g}: requires "
                "adapter_update=beside: in place, there is no old version"
            )

    def _authenticate_peers(self) -> None:
        if self.peers is not None and self.peer_service is not None:
            raise ValueError("peers and peer_service: set at most one of them")
        name = "peers" if self.peers is not None else "peer_service"
        redis = self.redis_address
        if redis is None:
            if self.peering is not None and not self.has_mesh:
                raise ValueError(f"peering={kinds.MESH}: requires peers or peer_service")
            if self.peering_password_file is not None:
                raise ValueError("peering_password_file: requires peering=redis://…")
            is_local, proof = _is_loopback(self.grpc_host), self.grpc_tls_client_ca_file
        else:
            if self.has_mesh:
                raise ValueError(f"peering=redis://… and {name}: set at most one of them")
            if self.peering_password_file is not None and redis.password is not None:
                raise ValueError("peering_password_file: peering has a password too; set one")
            is_local, proof = all(_is_loopback(host) for host, _ in redis.hosts), None
        if (
            self.has_peers
            and not is_local
            and self.peer_secret_file is None
            and proof is None
            and not self.peer_allow_unauthenticated
        ):
            if redis is not None:
                raise ValueError(
                    "peering: peers must prove who they are: set peer_secret_file, or "
                    "peer_allow_unauthenticated=true if only routers can publish on that server"
                )
            raise ValueError(
                f"{name}: peers must prove who they are: set peer_secret_file, or "
                "grpc_tls_client_ca_file for mutual TLS, or peer_allow_unauthenticated=true if "
                "only routers and gateways can reach the gRPC port"
            )

    def _allow_lease(self) -> None:
        if self.replication != "lease":
            return
        if self.workers != 1:
            raise ValueError(
                f"workers={self.workers} and replication=lease: set one of them: the Lease is held "
                "by one process, which decides everything"
            )
        if not self.has_peers:
            raise ValueError(
                "replication=lease: needs peering, by which a standby knows what the leader knows: "
                "set peer_service, peers or peering=redis://…"
            )

    def _allow_workers(self) -> None:
        if self.workers == 1:
            return
        if self.transport != "builtin":
            raise ValueError(
                f"workers={self.workers}: requires transport=builtin: grpcio serves only "
                "connections that it accepted itself"
            )

    def _allow_pool(self) -> None:
        if self.inference_pool is None:
            return
        others = ("kubernetes_namespaces", "kubernetes_selector", "kubernetes_port")
        for name in ("endpoints", *others, "kubernetes_port_name"):
            if name in self.model_fields_set and getattr(self, name) is not None:
                raise ValueError(f"inference_pool and {name}: set at most one of them")

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

    def _need_room_for_one_message(self) -> None:
        # The longest message, and room for others beside it.
        needed = 2 * self.grpc_max_message_size_bytes
        if self.max_buffered_bytes >= needed:
            return
        if "max_buffered_bytes" in self.model_fields_set:
            raise ValueError(
                f"max_buffered_bytes={self.max_buffered_bytes}: must be at least {needed}: twice "
                "grpc_max_message_size_bytes"
            )
        # Only the message limit was set, and above the default of the buffer, which follows it.
        object.__setattr__(self, "max_buffered_bytes", needed)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _need_each_other(settings: Settings, one: str, other: str) -> None:
    if (getattr(settings, one) is None) != (getattr(settings, other) is None):
        raise ValueError(f"{one} and {other}: set both or neither")


def _exclude_each_other(settings: Settings, one: str, other: str) -> None:
    if getattr(settings, one) is not None and getattr(settings, other) is not None:
        raise ValueError(f"{one} and {other}: set at most one of them")


def allowed(name: str) -> str:
    """Return which values a setting accepts, as a phrase that completes "must be …"."""
    return kinds.allowed_by(Settings.model_fields[name])
