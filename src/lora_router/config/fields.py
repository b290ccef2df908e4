"""All settings as the fields of one class, and what follows from several of them.

``agreement`` checks the fields against each other, and ``Settings`` refuses what does not agree.
"""

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


class Fields(
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
    """The fields of all settings."""

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
