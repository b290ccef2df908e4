"""The chart behind an Envoy that Envoy Gateway configured, with a router and pods."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from lora_router.app import App
from tests.chart.rendering import render
from tests.envoy import Envoy, free_port
from tests.integration.certificates import Certificates
from tests.integration.echo_pod import EchoPod
from tests.kube.gateway_config import Document, bootstrap, cluster_of, translate
from tests.kube.installed import Releases, install_router, installed_router
from tests.kube.server import KubeClient, KubeServer

Services = Mapping[tuple[str, str], list[EchoPod]]
"""Pods by the namespace and the name of their Service, which is that of their base model."""


def gateway_values(*services: tuple[str, str], **changes: object) -> dict[str, Any]:
    """Return values for a Gateway of the release, with the Services of the pods as backends.

    Args:
        services: Namespaces and names.
        changes: Other values below ``gateway.envoyGateway``.
    """
    backends = [
        {"name": name, "namespace": namespace, "port": 8000, "model": name, "referenceGrant": True}
        for namespace, name in services
    ]
    ours = {"createGateway": True, "gatewayName": "llm", "gatewayPort": free_port()}
    return {
        "gateway": {
            "mode": "envoy-gateway",
            "envoyGateway": ours | {"backends": backends} | changes,
        },
        "discovery": {"namespaces": sorted({namespace for namespace, _ in services})},
    }


@dataclass
class Installed:
    """A client of an Envoy that Envoy Gateway configured, and the servers behind it."""

    envoy: Envoy
    apps: list[App]
    client: aiohttp.ClientSession

    @property
    def app(self) -> App:
        """The first router."""
        return self.apps[0]

    async def post(self, body: Any, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Send a request. Returns the status and the name of the pod that answered."""
        url = f"http://127.0.0.1:{self.envoy.port}/v1/chat/completions"
        async with self.client.post(url, json=body, headers=headers) as response:
            await response.read()
            return response.status, response.headers.get("x-pod", "")


@asynccontextmanager
async def installed(
    kube: KubeServer,
    admin: KubeClient,
    releases: Releases,
    folder: Path,
    services: Services,
    values: Mapping[str, Any],
    *,
    without: str = "",
    certificates: Certificates | None = None,
    pod_certificates: Certificates | None = None,
    routers: int = 1,
    change: Callable[[Document], None] = lambda config: None,
) -> AsyncIterator[Installed]:
    """Install the chart, and run the router and an Envoy as it specifies.

    Args:
        kube: The API server.
        admin: Its client.
        releases: Helm.
        folder: For files.
        services: The pods. A Service without pods has no endpoints.
        values: The chart's.
        without: A kind of object that Envoy Gateway does not look at.
        certificates: For TLS between the two.
        pod_certificates: For TLS to the pods, which must serve with them.
        routers: Number of routers.
        change: Is given the translated bootstrap.
    """
    given: dict[str, object] = dict(values)
    flags: dict[str, object] = {}
    if certificates is not None:
        given["tls"] = {
            "secretName": "router-tls",
            "caConfigMapName": "ca",
            "hostname": "localhost",
        }
        flags = {
            "grpc_tls_cert_file": str(certificates.certificate),
            "grpc_tls_key_file": str(certificates.key),
        }
    if pod_certificates is not None:
        given["podTls"] = {"enabled": True, "caConfigMapName": "pods-ca", "hostname": "localhost"}
        flags["pod_tls_ca_file"] = str(pod_certificates.client_ca)
    async with AsyncExitStack() as stack:
        app = await install_router(kube, admin, releases, folder, given, flags)
        release = releases.get_all("mine")
        namespace = release["summary"]["namespace"]
        for (place, model), pods in services.items():
            for pod in pods:
                await stack.enter_async_context(pod)
                port = pod.address.rpartition(":")[2]
                labels = {"model.aibrix.ai/name": model, "model.aibrix.ai/port": port}
                await admin.pod(place, pod.name, labels={**labels, "app": "vllm"})
        apps = [app]
        for _ in range(1, routers):
            ports = {"grpc_port": free_port(), "admin_port": free_port()}
            apps.append(await installed_router(kube, admin, releases, folder, flags | ports))
        for app in apps:
            stack.push_async_callback(app.stop)
            await app.start()
        documents = [
            document
            for document in render(release["config"], release="mine", namespace=namespace)
            if document["kind"] != without
        ]
        ca = ""
        if certificates is not None:
            ca = certificates.client_ca.read_text()
            documents.append(_authority(namespace, "ca", ca))
        if pod_certificates is not None:
            ca = pod_certificates.client_ca.read_text()
            documents += [_authority(place, "pods-ca", ca) for place, _ in services]
        endpoints = {
            service: [pod.address for pod in pods] for service, pods in services.items() if pods
        }
        translated = await translate(documents, folder, endpoints)
        config = bootstrap(translated, free_port(), gateway=f"{namespace}/llm", ca=ca)
        router_endpoints(config, [app.transport.port for app in apps])
        change(config)
        envoy = await stack.enter_async_context(Envoy(yaml.safe_dump(config), folder))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        yield Installed(envoy, apps, client)


def router_endpoints(config: Document, ports: Iterable[int]) -> None:
    """Let Envoy know routers on loopback with these ports, and no other."""
    [locality] = cluster_of(config, "envoyextensionpolicy/")["loadAssignment"]["endpoints"]
    locality["lbEndpoints"] = [
        {"endpoint": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": port}}}}
        for port in ports
    ]


def _authority(namespace: str, name: str, ca: str) -> Document:
    """Return a ConfigMap with an authority that Envoy trusts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"ca.crt": ca},
    }
