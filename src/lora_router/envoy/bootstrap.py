"""A complete Envoy bootstrap that matches the settings, built from Envoy's typed messages.

Besides routing, the bootstrap ensures that:

- No client can send a header that selects an address. These headers are removed before any filter
  runs (``early_header_mutation``), whatever else is configured, also while no router answers.
- The loss of a router loses no answer that is being sent, and no request that Envoy can balance by
  itself (``envoy_fail_open``).
- Generations may take long: routes have no timeout, and streams have no idle timeout.
- A request that no pod has seen is sent again. No other request is.
- Requests in flight are not bounded by accident: Envoy's default circuit breakers would limit them
  to 1,024 per cluster. Memory and connections are bounded on purpose.
- Errors from Envoy itself have OpenAI's shape.
"""

import json
from typing import cast

import yaml
from betterproto2 import Casing
from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrap_v3
from envoy_data_plane.envoy.config.core import v3 as core

from lora_router.config.settings import Settings
from lora_router.envoy.addresses import socket_address
from lora_router.envoy.listener import listener
from lora_router.envoy.overload import overload_manager
from lora_router.envoy.pods_cluster import pods_cluster
from lora_router.envoy.router_cluster import router_cluster


def bootstrap_yaml(settings: Settings) -> str:
    """Return the bootstrap as YAML.

    Raises:
        EnvoyTlsError: A setting is missing that Envoy needs for TLS.
    """
    text: str = yaml.safe_dump(_document(settings), sort_keys=False, width=100)
    return text


def bootstrap_json(settings: Settings) -> str:
    """Return the bootstrap as JSON."""
    return json.dumps(_document(settings), indent=2) + "\n"


def bootstrap(settings: Settings) -> bootstrap_v3.Bootstrap:
    """Return the bootstrap as a typed message."""
    return bootstrap_v3.Bootstrap(
        node=core.Node(id="lora-router-gateway", cluster="lora-router-gateway"),
        admin=bootstrap_v3.Admin(
            address=socket_address("127.0.0.1", settings.envoy_admin_port),
            # Must answer when clients have taken all connections.
            ignore_global_conn_limit=True,
        ),
        static_resources=bootstrap_v3.BootstrapStaticResources(
            listeners=[listener(settings)],
            clusters=[router_cluster(settings), pods_cluster(settings)],
        ),
        overload_manager=overload_manager(settings),
    )


def _document(settings: Settings) -> dict[str, object]:
    document: dict[str, object] = bootstrap(settings).to_dict(casing=cast("Casing", _as_declared))
    return document


def _as_declared(name: str) -> str:
    """Return a field's name as Envoy declares and documents it.

    ``Casing.SNAKE`` would make ``consecutive_5_xx`` of ``consecutive_5xx``.
    """
    return name
