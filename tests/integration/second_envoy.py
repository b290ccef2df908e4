"""Another Envoy in front of the router of a gateway, with another configuration."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from lora_router.envoy.bootstrap import bootstrap_json
from tests.envoy import Envoy, free_port
from tests.integration.gateway import Gateway

_EXT_PROC = "envoy.filters.http.ext_proc"


def second_envoy(
    gate: Gateway,
    tmp_path: Path,
    *,
    manager: Mapping[str, object] | None = None,
    earlier_filters: Sequence[Mapping[str, object]] = (),
    cors: bool = False,
    **changes: object,
) -> Envoy:
    """Return an Envoy that has not started.

    Args:
        gate: The gateway whose router and pods it uses.
        tmp_path: For its configuration and its log.
        manager: Changes of the HTTP connection manager.
        earlier_filters: Filters before ext_proc.
        cors: Whether the route has a CORS policy.
        changes: Changes of the ext_proc filter. Mappings are merged.
    """
    document = json.loads(bootstrap_json(gate.settings))
    listener = document["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["port_value"] = free_port()
    document["admin"]["address"]["socket_address"]["port_value"] = free_port()
    configured = listener["filter_chains"][0]["filters"][0]["typed_config"]
    configured.update(manager or {})
    filters = configured["http_filters"]
    (at,) = (number for number, each in enumerate(filters) if each["name"] == _EXT_PROC)
    ext_proc = filters[at]["typed_config"]
    for key, value in changes.items():
        ext_proc[key] = ext_proc.get(key, {}) | value if isinstance(value, dict) else value
    filters[at:at] = earlier_filters
    if cors:
        configured["route_config"]["virtual_hosts"][0]["typed_per_filter_config"] = {
            "envoy.filters.http.cors": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
                "allow_origin_string_match": [{"prefix": "https://"}],
                "allow_methods": "POST",
            }
        }
    return Envoy(json.dumps(document), tmp_path, patient=True)


async def ask(
    gate: Gateway, envoy: Envoy, document: Mapping[str, object]
) -> tuple[aiohttp.ClientResponse, bytes]:
    """Send a request to this Envoy and read the complete response."""
    url = f"http://127.0.0.1:{envoy.port}/v1/completions"
    async with gate.client.post(url, json=document) as response:
        return response, await response.read()
