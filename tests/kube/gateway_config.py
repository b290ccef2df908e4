"""Translates the chart's resources with Envoy Gateway, to a configuration that an Envoy loads.

``egctl experimental translate`` is Envoy Gateway's own translator without a cluster around it. A
cluster's Envoy gets what it prints piece by piece from Envoy Gateway; ours gets it in one file.

The command reads no EndpointSlices. It takes an ordinary Service to be its address, and a headless
one to have no endpoints. The pods' Services are therefore translated as Backends, which list their
endpoints themselves; Envoy Gateway treats the endpoints of both alike.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from tests.kube.binaries import find

Document = dict[str, Any]
Endpoints = Mapping[tuple[str, str], Iterable[str]]
"""The addresses of pods on loopback, by namespace and name of their Service."""

_CLASS: Document = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "envoy-gateway"},
    "spec": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
}
_HANDLED = {
    "BackendTLSPolicy",
    "BackendTrafficPolicy",
    "ConfigMap",
    "ClientTrafficPolicy",
    "EnvoyExtensionPolicy",
    "EnvoyPatchPolicy",
    "EnvoyProxy",
    "Gateway",
    "HTTPRoute",
    "ReferenceGrant",
    "Service",
}
_BACKEND = {"group": "gateway.envoyproxy.io", "kind": "Backend"}
_ELSEWHERE = "192.0.2.1"
"""Stands for 127.0.0.1, which Envoy Gateway does not accept in a Backend."""


async def translate(
    documents: Iterable[Document], folder: Path, endpoints: Endpoints | None = None
) -> Document:
    """Return Envoy Gateway's translation of objects: the objects with their status, and ``xds``.

    Args:
        documents: The objects. Services are taken to be on the loopback address.
        folder: For the file that the command reads.
        endpoints: The pods. A Service of the HTTPRoute that is not named here has no endpoints.
    """
    endpoints = endpoints or {}
    chosen = [
        _CLASS,
        *(_backend(*service, endpoints[service]) for service in endpoints),
        *(_prepared(each, endpoints) for each in documents if each["kind"] in _HANDLED),
    ]
    chosen += _unknown_services(chosen)
    names = {document["metadata"].get("namespace") for document in chosen} - {None}
    chosen += [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in sorted(names)
    ]
    file = folder / "resources.yaml"
    file.write_text(yaml.safe_dump_all(chosen))
    egctl = find("egctl")
    assert egctl is not None
    process = await asyncio.create_subprocess_exec(
        *(egctl, "experimental", "translate", "--from", "gateway-api", "--to", "gateway-api,xds"),
        *("--output", "json", "--file", file),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    translated: Document = json.loads(output.replace(_ELSEWHERE.encode(), b"127.0.0.1"))
    return translated


def _prepared(original: Document, endpoints: Endpoints) -> Document:
    """Return an object as the command can read it."""
    document = deepcopy(original)
    spec, namespace = document.get("spec", {}), document["metadata"]["namespace"]
    match document["kind"]:
        case "Service" if spec.get("clusterIP") != "None":
            spec["clusterIP"] = "127.0.0.1"
        case "Gateway":
            # The command reads namespaces without their labels, so none would be selected.
            for listener in spec["listeners"]:
                if listener["allowedRoutes"]["namespaces"]["from"] == "Selector":
                    listener["allowedRoutes"]["namespaces"] = {"from": "All"}
    for reference in _to_services(document):
        if (reference.get("namespace", namespace), reference["name"]) in endpoints:
            reference.pop("port", None)
            reference.update(_BACKEND)
    return document


def _to_services(document: Document) -> Iterable[Document]:
    """Return the references of an object to Services of pods."""
    match document["kind"]:
        case "HTTPRoute":
            yield from _references(document)
        case "BackendTLSPolicy":
            yield from document["spec"]["targetRefs"]
        case "ReferenceGrant":
            yield from document["spec"]["to"]


def _references(route: Document) -> Iterable[Document]:
    for rule in route["spec"]["rules"]:
        yield from rule["backendRefs"]


def _backend(namespace: str, name: str, addresses: Iterable[str]) -> Document:
    ports = [int(address.rpartition(":")[2]) for address in addresses]
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "Backend",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"endpoints": [{"ip": {"address": _ELSEWHERE, "port": port}} for port in ports]},
    }


def _unknown_services(documents: Iterable[Document]) -> list[Document]:
    """Return headless Services for references of HTTPRoutes to Services that the user has."""
    known = {
        (document["metadata"]["namespace"], document["metadata"]["name"])
        for document in documents
        if document["kind"] == "Service"
    }
    found = {}
    for document in documents:
        if document["kind"] != "HTTPRoute":
            continue
        for reference in _references(document):
            namespace = reference.get("namespace", document["metadata"]["namespace"])
            service = (namespace, reference["name"])
            if reference.get("kind") == "Backend" or service in known:
                continue
            found[service] = {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": reference["name"], "namespace": namespace},
                "spec": {"clusterIP": "None", "ports": [{"port": reference["port"]}]},
            }
    return list(found.values())


def refusals(translated: Document) -> list[str]:
    """Return the objects that Envoy Gateway did not accept."""
    found: list[str] = []

    def search(value: object, where: str) -> None:
        if isinstance(value, dict):
            found.extend(
                f"{where}: {condition['type']}: {condition['message']}"
                for condition in value.get("conditions", [])
                if condition["status"] != "True"
            )
            for key, item in value.items():
                search(item, f"{where}/{key}")
        elif isinstance(value, list):
            for item in value:
                search(item, where)

    search({key: value for key, value in translated.items() if key != "xds"}, "")
    return found


def bootstrap(
    translated: Document, admin_port: int, *, gateway: str | None = None, ca: str = ""
) -> Document:
    """Return the translation for a Gateway as a bootstrap with listeners on loopback.

    Args:
        translated: What was printed.
        admin_port: For Envoy's own pages.
        gateway: Namespace and name. ``None``: the only one.
        ca: Certificate of whom Envoy is to trust, where its clusters speak TLS.
    """
    if gateway is None:
        [gateway] = translated["xds"]
    dumps = {
        dump["@type"].rpartition(".")[2]: dump for dump in translated["xds"][gateway]["configs"]
    }
    endpoints = {
        each["endpointConfig"]["clusterName"]: _plain(each["endpointConfig"])
        for each in dumps["EndpointsConfigDump"]["dynamicEndpointConfigs"]
    }
    routes = {
        each["routeConfig"]["name"]: _plain(each["routeConfig"])
        for each in dumps["RoutesConfigDump"]["dynamicRouteConfigs"]
    }
    clusters = [
        _plain(each["cluster"]) for each in dumps["ClustersConfigDump"]["dynamicActiveClusters"]
    ]
    secrets: set[str] = set()
    for cluster in clusters:
        if cluster["type"] == "EDS":
            service = cluster.pop("edsClusterConfig")["serviceName"]
            cluster |= {"type": "STATIC", "loadAssignment": endpoints[service]}
        secrets |= _static_secrets(cluster)
    listeners = [
        _listener(_plain(each["activeState"]["listener"]), routes)
        for each in dumps["ListenersConfigDump"]["dynamicListeners"]
    ]
    return {
        "admin": {"address": _loopback(admin_port)},
        "static_resources": {
            "listeners": [listener for listener in listeners if listener is not None],
            "clusters": clusters,
            # The command does not print them.
            "secrets": [
                {"name": name, "validation_context": {"trusted_ca": {"inline_string": ca}}}
                for name in sorted(secrets)
            ],
        },
    }


def _static_secrets(part: object) -> set[str]:
    """Replace requests for secrets by references to static ones. Returns their names."""
    names: set[str] = set()
    if isinstance(part, dict):
        if part.pop("sdsConfig", None) is not None:
            names.add(part["name"])
        part = list(part.values())
    if isinstance(part, list):
        for value in part:
            names |= _static_secrets(value)
    return names


def connection_manager(listener: Document) -> Document:
    """Return the HTTP connection manager of a translated listener."""
    [found] = listener["defaultFilterChain"]["filters"]
    config: Document = found["typedConfig"]
    return config


def routes_of(config: Document) -> list[Document]:
    """Return the routes of a bootstrap, in their order."""
    [listener] = config["static_resources"]["listeners"]
    hosts = connection_manager(listener)["routeConfig"]["virtualHosts"]
    return [route for host in hosts for route in host["routes"]]


def processor(config: Document) -> Document:
    """Return the ext_proc filter of a bootstrap."""
    [listener] = config["static_resources"]["listeners"]
    first, _ = connection_manager(listener)["httpFilters"]
    found: Document = first["typedConfig"]
    assert found["@type"].endswith("ExternalProcessor")
    return found


def without_router(config: Document) -> None:
    """Let requests pass without a router, and with the headers that clients send."""
    [listener] = config["static_resources"]["listeners"]
    manager = connection_manager(listener)
    manager["httpFilters"] = manager["httpFilters"][1:]
    manager.pop("earlyHeaderMutationExtensions")
    for route in routes_of(config):
        route.pop("typedPerFilterConfig")


def cluster_of(config: Document, part: str) -> Document:
    """Return the only cluster of a bootstrap with a part of a name."""
    [found] = [each for each in config["static_resources"]["clusters"] if part in each["name"]]
    cluster: Document = found
    return cluster


def _listener(listener: Document, routes: dict[str, Document]) -> Document | None:
    if "defaultFilterChain" not in listener:
        return None  # Envoy Gateway's own, for probes of Envoy.
    manager = connection_manager(listener)
    # As with RDS: a Service without endpoints is translated to a cluster that does not exist.
    route = routes[manager.pop("rds")["routeConfigName"]] | {"validateClusters": False}
    manager["routeConfig"] = route
    # Envoy would write access logs to standard output.
    for logged in (listener, manager):
        logged.pop("accessLog", None)
    return {**listener, "address": _loopback(listener["address"]["socketAddress"]["portValue"])}


def _plain(packed: Document) -> Document:
    """Unpack a ``google.protobuf.Any`` of the dump."""
    return {key: value for key, value in packed.items() if key != "@type"}


def _loopback(port: int) -> Document:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
