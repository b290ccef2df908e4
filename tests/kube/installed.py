"""The router as a release runs it: its settings file, service account, permissions and Secrets."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.config.sources import load_settings
from tests.chart import CHART
from tests.envoy import free_port
from tests.kube.server import KubeClient, KubeServer

PEER_SECRET = ("mine-lora-router-peers", "peer-secret")
"""The Secret with the key of the peers, and its key."""

Releases: TypeAlias = Any
"""The Helm engine in one namespace (``helm_python.Config``)."""


async def install_router(
    kube: KubeServer,
    admin: KubeClient,
    releases: Releases,
    folder: Path,
    values: Mapping[str, object] | None = None,
    flags: Mapping[str, object] | None = None,
) -> App:
    """Install the chart as release ``mine`` with free ports, and return its router.

    Args:
        values: The chart's.
        flags: What is otherwise for the router here than in a container.
    """
    values = values or {}
    ports = {"grpc_port": free_port(), "admin_port": free_port()}
    settings = {**_mapping(values.get("settings")), **ports}
    releases.install(CHART, "mine", {**values, "settings": settings})
    return await installed_router(kube, admin, releases, folder, flags)


async def installed_router(
    kube: KubeServer,
    admin: KubeClient,
    releases: Releases,
    folder: Path,
    flags: Mapping[str, object] | None = None,
) -> App:
    """Return a router of the release ``mine``, with the settings and the account of its pods."""
    return App(await installed_settings(kube, admin, releases, folder, flags))


async def installed_settings(
    kube: KubeServer,
    admin: KubeClient,
    releases: Releases,
    folder: Path,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Return the settings of the pods of the release ``mine``, with their account."""
    namespace = releases.get_all("mine")["summary"]["namespace"]
    return await settings_of("mine-lora-router", namespace, kube, admin, folder, flags)


async def settings_of(
    name: str,
    namespace: str,
    kube: KubeServer,
    admin: KubeClient,
    folder: Path,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Return the settings of the pods of a Deployment, with their account."""
    path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
    file = folder / "config.yaml"
    file.write_text((await admin.call("GET", path))["data"]["config.yaml"])
    token = await admin.token(namespace, name)
    secret = folder / "peer-secret"
    secret.write_bytes(await _secret(admin, namespace, f"{name}-peers", PEER_SECRET[1]))
    # Any: nobody asks for the page.
    (folder / "admin-token").write_text("a-token-of-the-tests")
    here = {
        "admin_token_file": str(folder / "admin-token"),
        "peer_secret_file": str(secret),
        "kubernetes_kubeconfig": str(kube.write_kubeconfig(folder / "config", token=token)),
        "grpc_host": "127.0.0.1",
        "admin_host": "127.0.0.1",
        "drain_timeout_seconds": 0,
        **(flags or {}),
    }
    environ = await _environment(admin, namespace, name)
    return load_settings(file=file, environ=environ, flags=here).settings


async def peer_secret(admin: KubeClient, namespace: str) -> bytes:
    """Return the key by which the routers of the release ``mine`` know each other."""
    return await _secret(admin, namespace, *PEER_SECRET)


async def _environment(admin: KubeClient, namespace: str, name: str) -> dict[str, str]:
    """Return the environment variables of the router's container."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    [container] = (await admin.call("GET", path))["spec"]["template"]["spec"]["containers"]
    found = {}
    for each in container["env"]:
        if (source := each.get("valueFrom")) is None:
            found[each["name"]] = each["value"]
        elif (key := source.get("secretKeyRef")) is not None:
            found[each["name"]] = (
                await _secret(admin, namespace, key["name"], key["key"])
            ).decode()
    return found


async def _secret(admin: KubeClient, namespace: str, name: str, key: str) -> bytes:
    path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
    return base64.b64decode((await admin.call("GET", path))["data"][key])


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
