"""What Envoy does before its memory or its connections run out (the overload manager).

The shares below are of ``envoy_max_heap_bytes``. With more of it in use, Envoy gives up more:
first memory that it can return, then connections that wait for nothing, then the requests that hold
the most memory (uploads, or answers that a client does not read), and other requests last. Envoy
1.40 knows the memory of requests over HTTP/2 only.
"""

from datetime import timedelta

from envoy_data_plane.envoy.config.overload import v3 as overload_v3
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections import (
    v3 as connections_v3,
)
from envoy_data_plane.envoy.extensions.resource_monitors.fixed_heap import v3 as heap_v3
from envoy_data_plane.google.protobuf import Any

from lora_router.config.settings import Settings

_HEAP = "envoy.resource_monitors.fixed_heap"
_CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"

_SHRINK_HEAP = 0.70
_CLOSE_IDLE = 0.80
_RESET_FROM, _RESET_ALL = 0.80, 0.90
_REFUSE_REQUESTS = 0.95
_REFUSE_CONNECTIONS = 0.98
_TRACKED_POWER_OF_TWO = 20
"""Requests that hold less than 1 MiB are never reset for their memory."""


def overload_manager(settings: Settings) -> overload_v3.OverloadManager:
    """Return the overload manager."""
    heap = heap_v3.FixedHeapConfig(max_heap_size_bytes=settings.envoy_max_heap_bytes)
    connections = connections_v3.DownstreamConnectionsConfig(
        max_active_downstream_connections=settings.envoy_max_connections
    )
    return overload_v3.OverloadManager(
        refresh_interval=timedelta(seconds=0.25),
        resource_monitors=[
            overload_v3.ResourceMonitor(name=_HEAP, typed_config=Any.pack(heap)),
            overload_v3.ResourceMonitor(name=_CONNECTIONS, typed_config=Any.pack(connections)),
        ],
        actions=[
            _at("envoy.overload_actions.shrink_heap", _SHRINK_HEAP),
            _at("envoy.overload_actions.disable_http_keepalive", _CLOSE_IDLE),
            overload_v3.OverloadAction(
                name="envoy.overload_actions.reset_high_memory_stream",
                triggers=[
                    overload_v3.Trigger(
                        name=_HEAP,
                        scaled=overload_v3.ScaledTrigger(
                            scaling_threshold=_RESET_FROM, saturation_threshold=_RESET_ALL
                        ),
                    )
                ],
            ),
            _at("envoy.overload_actions.stop_accepting_requests", _REFUSE_REQUESTS),
            _at("envoy.overload_actions.reject_incoming_connections", _REFUSE_CONNECTIONS),
        ],
        buffer_factory_config=overload_v3.BufferFactoryConfig(
            minimum_account_to_track_power_of_two=_TRACKED_POWER_OF_TWO
        ),
    )


def _at(action: str, share: float) -> overload_v3.OverloadAction:
    return overload_v3.OverloadAction(
        name=action,
        triggers=[
            overload_v3.Trigger(name=_HEAP, threshold=overload_v3.ThresholdTrigger(value=share))
        ],
    )
