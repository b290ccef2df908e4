"""The configurations of two Envoys: the gateway that is measured, and one that stands for the pods.

The gateway has the configuration that ``lora-router envoy-config`` prints, with more listeners: one
for each router, one for each server that decides nothing, and one without a filter. On listeners
without a router the client names the pod in ``target-pod``, so that all requests are forwarded in
the same way.
"""

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lora_router.config.sources import load_settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from lora_router.envoy.pods_cluster import PODS_CLUSTER
from lora_router.envoy.router_cluster import ROUTER_CLUSTER

_RECORDED = Path(__file__).parents[1] / "tests/data/vllm-0.32.0"
PAGES = tuple(sorted(_RECORDED.glob("*.prom")))
"""Metrics pages that one vLLM 0.32.0 served, in order of time. The last one is the longest."""
_MODELS = _RECORDED / "v1_models.json"
_MOST_BODY_BYTES = 8 * 1024 * 1024
SLOTS = 64
"""Adapter slots that a pod reports: enough for all connections, so that no request is held."""

_Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener of the gateway."""

    name: str
    port: int
    """Port for clients."""
    asks: int | None
    """Port of the server that the filter calls. ``None``: no filter."""
    routes: bool
    """Whether that server names the pod. Otherwise the client does."""
    workers: int = 1
    """The workers of that server."""


def pod_address(number: int, port: int) -> str:
    """Return a pod's endpoint. Each pod has a loopback address of its own."""
    return f"{_pod_host(number)}:{port}"


def gateway(listeners: Iterable[Listener], admin_port: int) -> str:
    """Return the bootstrap of the gateway as JSON."""
    document = _printed(admin_port, 1)
    resources = document["static_resources"]
    (listener,) = resources["listeners"]
    by_name = {cluster["name"]: cluster for cluster in resources["clusters"]}
    resources["listeners"] = []
    resources["clusters"] = [by_name[PODS_CLUSTER]]
    for each in listeners:
        resources["listeners"].append(_listener(copy.deepcopy(listener), each))
        if each.asks is not None:
            printed = _printed(admin_port, each.workers)["static_resources"]["clusters"]
            (cluster,) = (found for found in printed if found["name"] == ROUTER_CLUSTER)
            resources["clusters"].append(_asking(cluster, each.name, each.asks))
    return json.dumps(document)


def _printed(admin_port: int, workers: int) -> _Document:
    """Return the bootstrap that ``lora-router envoy-config`` prints."""
    flags = {
        "envoy_listen_host": "127.0.0.1",
        "envoy_admin_port": admin_port,
        "envoy_access_log": "off",
        "envoy_pods": "original-dst",
        "workers": workers,
    }
    settings = load_settings(file=None, environ={}, flags=flags).settings
    document: _Document = yaml.safe_load(bootstrap_yaml(settings))
    return document


def pods(count: int, port: int, admin_port: int, *, pages: Sequence[Path] = PAGES[-1:]) -> str:
    """Return the bootstrap of an Envoy that stands for ``count`` pods, as JSON.

    It answers every request as soon as it has its body. ``/metrics`` returns one of the recorded
    pages, chosen at random for each request. ``/v1/models`` returns a recorded page.
    """
    answer = json.dumps({"object": "chat.completion", "choices": [], "usage": {"total_tokens": 1}})
    manager = {
        "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "pods",
        "http_filters": [
            {
                # Without it the answer overtakes the body, and Envoy closes the connection.
                "name": "envoy.filters.http.buffer",
                "typed_config": {
                    "@type": _type("filters.http.buffer.v3.Buffer"),
                    "max_request_bytes": _MOST_BODY_BYTES,
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": _type("filters.http.router.v3.Router")},
            },
        ],
        "route_config": {
            "max_direct_response_body_size_bytes": 1024 * 1024,
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        *_metrics(pages),
                        _answer({"path": "/v1/models"}, _MODELS.read_text()),
                        _answer({"prefix": "/"}, answer),
                    ],
                }
            ],
        },
    }
    first, *others = (_socket(_pod_host(number), port) for number in range(count))
    listener = {
        "name": "pods",
        "address": first,
        "additional_addresses": [{"address": other} for other in others],
        "per_connection_buffer_limit_bytes": _MOST_BODY_BYTES,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": manager,
                    }
                ]
            }
        ],
    }
    return json.dumps(
        {
            "admin": {"address": _socket("127.0.0.1", admin_port)},
            "static_resources": {"listeners": [listener]},
        }
    )


def pods_file(addresses: Sequence[str], models: Sequence[str]) -> str:
    """Return a ``pods.yaml`` whose pods all serve the same models.

    Without models, the router reads them from the pods. The list is written once, with an anchor:
    ten thousand names for each of a thousand pods would exceed the size limit of the file.
    """
    lines = ["pods:"]
    for number, address in enumerate(addresses):
        lines += [f"- name: pod-{number}", f"  address: {address}"]
        if models:
            lines.append(f"  models: {'*all' if number else f'&all {json.dumps(list(models))}'}")
    return "\n".join(lines) + "\n"


def _listener(listener: _Document, wanted: Listener) -> _Document:
    listener["name"] = wanted.name
    listener["address"]["socket_address"]["port_value"] = wanted.port
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["stat_prefix"] = wanted.name
    if not wanted.routes:
        del manager["early_header_mutation_extensions"]
    if wanted.asks is None:
        del manager["http_filters"][0]
    else:
        asks = manager["http_filters"][0]["typed_config"]["grpc_service"]["envoy_grpc"]
        asks["cluster_name"] = wanted.name
    return listener


def _asking(cluster: _Document, name: str, port: int) -> _Document:
    assignment = cluster["load_assignment"]
    cluster["name"] = assignment["cluster_name"] = name
    endpoint = assignment["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"] = _socket("127.0.0.1", port)
    # The servers that decide nothing have no health service.
    del cluster["health_checks"]
    return cluster


def _answer(match: _Document, text: str) -> _Document:
    return {
        "match": match,
        "direct_response": {"status": 200, "body": {"inline_string": text}},
    }


def _metrics(pages: Sequence[Path]) -> Iterable[_Document]:
    """Yield a route for each page. Each takes an equal share of the requests."""
    for number, page in enumerate(pages):
        share = {"numerator": 1_000_000 // (len(pages) - number), "denominator": "MILLION"}
        match = {"path": "/metrics", "runtime_fraction": {"default_value": share}}
        yield _answer(match, page.read_text().replace('max_lora="2"', f'max_lora="{SLOTS}"'))


def _socket(host: str, port: int) -> _Document:
    return {"socket_address": {"address": host, "port_value": port}}


def _pod_host(number: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}"


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"
