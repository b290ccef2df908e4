"""Defines every setting: its name, default, meaning, and allowed values.

A ``Settings`` object holds exactly what its constructor was given, and defaults for the rest.
``lora_router.config.sources`` reads the file, the environment and the flags.
"""

from collections.abc import Iterator
from typing import Self

from pydantic import ConfigDict, model_validator

from lora_router.config import kinds
from lora_router.config.adapter_settings import AdapterSettings
from lora_router.config.agreement import Contradiction, ContradictionError, contradictions
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
        found = [
            *self._limit_body(),
            *self._need_room_for_one_message(),
            *contradictions(self),
        ]
        if found:
            raise ContradictionError(found)
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

    def _limit_body(self) -> Iterator[Contradiction]:
        room = self.grpc_max_message_size_bytes - MESSAGE_ROOM_BYTES
        if self.max_body_bytes <= room:
            return
        if "max_body_bytes" in self.model_fields_set:
            yield Contradiction(
                ("max_body_bytes", "grpc_max_message_size_bytes"),
                f"max_body_bytes={self.max_body_bytes}: must be at most {room}: "
                f"grpc_max_message_size_bytes minus {MESSAGE_ROOM_BYTES}",
            )
            return
        # Only the message limit was set, and below its default. The default body limit follows it.
        object.__setattr__(self, "max_body_bytes", room)

    def _need_room_for_one_message(self) -> Iterator[Contradiction]:
        # The longest message, and room for others beside it.
        needed = 2 * self.grpc_max_message_size_bytes
        if self.max_buffered_bytes >= needed:
            return
        if "max_buffered_bytes" in self.model_fields_set:
            yield Contradiction(
                ("max_buffered_bytes", "grpc_max_message_size_bytes"),
                f"max_buffered_bytes={self.max_buffered_bytes}: must be at least {needed}: twice "
                "grpc_max_message_size_bytes",
            )
            return
        # Only the message limit was set, and above the default of the buffer, which follows it.
        object.__setattr__(self, "max_buffered_bytes", needed)


def allowed(name: str) -> str:
    """Return which values a setting accepts, as a phrase that completes "must be …"."""
    return kinds.allowed_by(Settings.model_fields[name])
