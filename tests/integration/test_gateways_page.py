"""docs/gateways.md: the parts for Envoy, and the patches for Istio, in a real Envoy."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.envoy import Envoy, free_port
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.pages import DOCS, documents
from tests.waiting import until

PAGE = (DOCS / "gateways.md").read_text()
Config = dict[str, Any]
ISTIOS_ROUTER = "outbound|50052||lora-router.models.svc.cluster.local"
MANAGER = "envoy.filters.network.http_connection_manager"
MANAGER_TYPE = (
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
    "HttpConnectionManager"
)


def part(**wanted: object) -> Config:
    """Return the only document of the page with these keys at its top."""
    [found] = [
        document
        for document in documents(PAGE)
        if all(document.get(key) == value for key, value in wanted.items())
    ]
    return deepcopy(dict(found))


def configuration() -> Config:
    """Return an Envoy that has one route and does not know the router, as a gateway makes it."""
    manager = {
        "@type": MANAGER_TYPE,
        "stat_prefix": "gateway",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "some-service"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    listener = {
        "name": "http",
        "address": address(free_port()),
        "filter_chains": [{"filters": [{"name": MANAGER, "typed_config": manager}]}],
    }
    return {
        "admin": {"address": address(free_port())},
        "static_resources": {
            "listeners": [listener],
            "clusters": [{"name": "some-service", "type": "STATIC"}],
        },
    }


def address(port: int) -> Config:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def connection_manager(config: Config) -> Config:
    [listener] = config["static_resources"]["listeners"]
    [found] = listener["filter_chains"][0]["filters"]
    manager: Config = found["typed_config"]
    return manager


def only_route(config: Config) -> Config:
    [host] = connection_manager(config)["route_config"]["virtual_hosts"]
    [route] = host["routes"]
    action: Config = route["route"]
    return action


def routers_cluster(name: str, port: int) -> Config:
    """Return a cluster of the router, as a mesh makes it of the Service."""
    [cluster] = [each for each in part_with("clusters") if each["name"] == "lora-router"]
    cluster |= {"name": name, "type": "STATIC"}
    cluster["load_assignment"]["cluster_name"] = name
    [endpoints] = cluster["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [{"endpoint": {"address": address(port)}}]
    return cluster


def part_with(key: str) -> list[Config]:
    [found] = [document[key] for document in documents(PAGE) if key in document]
    return deepcopy(list(found))


def envoy_with_the_parts(port: int) -> Config:
    """Return an Envoy with the filter and the clusters of the page."""
    config = configuration()
    pods = [each for each in part_with("clusters") if each["name"] != "lora-router"]
    config["static_resources"]["clusters"] += [routers_cluster("lora-router", port), *pods]
    connection_manager(config)["http_filters"].insert(0, part(name="envoy.filters.http.ext_proc"))
    only_route(config)["cluster"] = "lora-router-pods"
    return config


def envoy_with_istios_patches(port: int) -> Config:
    """Return an Envoy with the patches of the page's EnvoyFilter, put where Istio puts them."""
    config = configuration()
    config["static_resources"]["clusters"].append(routers_cluster(ISTIOS_ROUTER, port))
    for patch in part(kind="EnvoyFilter")["spec"]["configPatches"]:
        operation, value = patch["patch"]["operation"], patch["patch"]["value"]
        filters = connection_manager(config)["http_filters"]
        match patch["applyTo"], operation:
            case "CLUSTER", "ADD":
                config["static_resources"]["clusters"].append(value)
            case "NETWORK_FILTER", "MERGE":
                merge(connection_manager(config), value["typed_config"])
            case "HTTP_FILTER", "INSERT_BEFORE":
                before = patch["match"]["listener"]["filterChain"]["filter"]["subFilter"]["name"]
                filters.insert([each["name"] for each in filters].index(before), value)
            case "HTTP_ROUTE", "MERGE":
                merge(only_route(config), value["route"])
            case other:
                raise AssertionError(other)
    return config


def merge(into: Config, value: Mapping[str, Any]) -> None:
    """Merge as protobuf does: fields replace fields, and lists are joined."""
    for key, new in value.items():
        old = into.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            merge(old, new)
        elif isinstance(old, list) and isinstance(new, list):
            old.extend(new)
        else:
            into[key] = new


@asynccontextmanager
async def behind(
    make: Any, pods: Iterable[EchoPod], folder: Path
) -> AsyncIterator[tuple[Gateway, str]]:
    """Run an Envoy that `make` configures before a router. Yields them, and the URL."""
    async with gateway(folder, list(pods)) as site:
        config = yaml.safe_dump(make(site.settings.grpc_port))
        async with Envoy(config, folder, patient=True) as envoy:
            yield site, f"http://127.0.0.1:{envoy.port}/v1/chat/completions"


@pytest.mark.envoy
@pytest.mark.parametrize("make", [envoy_with_the_parts, envoy_with_istios_patches])
async def test_requests_go_to_the_pod_that_has_the_adapter(make: Any, tmp_path: Path) -> None:
    pods = [EchoPod("one", ("a1",)), EchoPod("two", ("a2",))]
    async with behind(make, pods, tmp_path) as (site, url):
        for model, pod in (("a1", "one"), ("a2", "two")):
            async with site.client.post(url, json={"model": model}) as response:
                assert (response.status, response.headers["x-pod"]) == (200, pod)
        async with site.client.post(url, json={"model": "unknown"}) as response:
            assert response.status == 404


@pytest.mark.envoy
@pytest.mark.parametrize("make", [envoy_with_the_parts, envoy_with_istios_patches])
async def test_a_request_counts_until_its_answer_ends(make: Any, tmp_path: Path) -> None:
    pods = [EchoPod("one")]
    async with behind(make, pods, tmp_path) as (site, url):
        body = {"model": "base", "tokens": 1, "pause": 0, "waits": True}
        running = asyncio.create_task(site.client.post(url, json=body))
        await until(lambda: bool(pods[0].received), 60)
        assert site.in_flight == 1
        pods[0].may_end.set()
        async with await running as response:
            await response.read()
        await until(lambda: site.in_flight == 0, 60)


@pytest.mark.envoy
@pytest.mark.parametrize("make", [envoy_with_the_parts, envoy_with_istios_patches])
async def test_no_client_chooses_an_address(make: Any, tmp_path: Path) -> None:
    """Also while no router answers: then the request is refused, or has no address."""
    async with EchoPod("elsewhere") as elsewhere:
        async with behind(make, [EchoPod("one")], tmp_path) as (site, url):
            names = ("target-pod", "x-gateway-destination-endpoint", "model")
            stolen = dict.fromkeys(names, elsewhere.address)
            assert await answer(site.client, url, stolen) == (200, "one")
            await site.app.stop()
            status, _ = await answer(site.client, url, stolen)
            assert status >= 500
        assert elsewhere.received == []


async def answer(
    client: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> tuple[int, str]:
    async with client.post(url, json={"model": "base"}, headers=headers) as response:
        return response.status, response.headers.get("x-pod", "")


async def test_every_block_is_yaml() -> None:
    assert len(documents(PAGE)) > 10
    assert all(isinstance(document, dict) for document in documents(PAGE))
