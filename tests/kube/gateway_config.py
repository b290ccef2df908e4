"""Translates the chart's resources with Envoy Gateway, to a configuration that an Envoy loads.

``egctl experimental translate`` is Envoy Gateway's own translator without a cluster around it. A
cluster's Envoy gets what it prints piece by piece from Envoy Gateway; ours gets it in one file.
"""

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.kube.binaries import find

Document = dict[str, Any]

_CLASS: Document = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "envoy-gateway"},
    "spec": {"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"},
}
_HANDLED = {
    "BackendTLSPolicy",
    "ConfigMap",
    "ClientTrafficPolicy",
    "EnvoyExtensionPolicy",
    "EnvoyPatchPolicy",
    "Gateway",
    "HTTPRoute",
    "Service",
}


async def translate(documents: Iterable[Document], folder: Path, to: str) -> Document:
    """Return Envoy Gateway's translation of objects: ``xds``, or ``gateway-api`` with its status.

    Services are taken to be on the loopback address.
    """
    chosen = [_CLASS]
    for document in documents:
        if document["kind"] not in _HANDLED:
            continue
        if document["kind"] == "Service":
            document["spec"]["clusterIP"] = "127.0.0.1"
        if document["kind"] == "Gateway":
            # The command reads namespaces without their labels, so none would be selected.
            for listener in document["spec"]["listeners"]:
                if listener["allowedRoutes"]["namespaces"]["from"] == "Selector":
                    listener["allowedRoutes"]["namespaces"] = {"from": "All"}
        chosen.append(document)
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
        *(egctl, "experimental", "translate", "--from", "gateway-api", "--to", to),
        *("--output", "json", "--file", file),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    translated: Document = json.loads(output)
    return translated


def refusals(translated: Document) -> list[str]:
    """Return the objects that Envoy Gateway did not accept, from the output of ``gateway-api``."""
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

    search(translated, "")
    return found


def bootstrap(translated: Document, gateway: str, admin_port: int, *, ca: str = "") -> Document:
    """Return the output of ``xds`` for a Gateway as a bootstrap with listeners on loopback.

    Args:
        translated: What was printed.
        gateway: Namespace and name.
        admin_port: For Envoy's own pages.
        ca: Certificate of whom Envoy is to trust, where its clusters speak TLS.
    """
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


def _listener(listener: Document, routes: dict[str, Document]) -> Document | None:
    if "defaultFilterChain" not in listener:
        return None  # Envoy Gateway's own, for probes of Envoy.
    manager = connection_manager(listener)
    manager["routeConfig"] = routes[manager.pop("rds")["routeConfigName"]]
    # Envoy would write access logs to standard output.
    for logged in (listener, manager):
        logged.pop("accessLog", None)
    return {**listener, "address": _loopback(listener["address"]["socketAddress"]["portValue"])}


def _plain(packed: Document) -> Document:
    """Unpack a ``google.protobuf.Any`` of the dump."""
    return {key: value for key, value in packed.items() if key != "@type"}


def _loopback(port: int) -> Document:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
