"""docs/kubernetes.md works as written: each command and each object, from an empty cluster."""

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_router.app import App
from tests.chart import CHART
from tests.chart.rendering import Document, render
from tests.kube import crds, inference
from tests.kube.binaries import KUBECTL, why_not
from tests.kube.installed import settings_of
from tests.kube.reader_tools import GATEWAY_ADDRESS
from tests.kube.server import KubeClient, KubeError, KubeServer
from tests.pages import DOCS, Command, commands, documents

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = (DOCS / "kubernetes.md").read_text()
NAMESPACE = "models-of-the-page"
"""The page's namespace has another name here, because other tests use one of that name."""
NO_DEFINITION = {"Certificate"}
"""Kinds whose definitions are in no module that the tests pin."""
_missing = why_not(KUBECTL)


def moved(text: str) -> str:
    """Return a part of the page for the namespace of this test."""
    return re.sub(r"(?<![/\w-])models(?![\w_])", NAMESPACE, text)


@pytest.mark.skipif(_missing is not None, reason=str(_missing))
async def test_each_command_works_in_the_order_of_the_page(
    kube: KubeServer, admin: KubeClient, resources: crds.Resources, folder: Path
) -> None:
    await inference.install(admin)  # `resources` has installed what Envoy Gateway brings.
    shell = Shell(kube, folder)
    router: App | None = None
    installed = False
    try:
        for command in commands(PAGE):
            installs = command.text.startswith("helm install lora-router") and not command.output
            if installs and installed:
                # The page shows another way.
                await shell.run(Command("helm uninstall lora-router --namespace models", ""))
            installed = installed or installs
            if "lora-router-tls" in command.text and "configmap" in command.text:
                await cert_manager(admin)
            if "localhost:8080" in command.text and router is None:
                router = await started(kube, admin, folder)
                shell.environ["ROUTER_ADMIN"] = f"127.0.0.1:{router.admin.port}"
            await shell.run(command)
            if "createGateway=true" in command.text:
                await envoy_gateway(admin)
            if "--set tls.secretName" in command.text:
                # The page goes on without TLS.
                off = command.text.replace("secretName=lora-router-tls", "secretName=")
                await shell.run(Command(off, ""))
    finally:
        if router is not None:
            await router.stop()


class Shell:
    """Runs commands with ``bash``, with the tools of ``reader_tools``."""

    def __init__(self, kube: KubeServer, folder: Path) -> None:
        tools = folder / "bin"
        tools.mkdir()
        for name in ("helm", "kubectl", "docker", "curl"):
            tool = tools / name
            call = f'exec "{sys.executable}" -m tests.kube.reader_tools {name} "$@"'
            tool.write_text(f"#!/bin/sh\n{call}\n")
            tool.chmod(0o755)
        self.environ = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "KUBECONFIG": str(kube.kubeconfig),
            "PYTHONPATH": str(CHART.parents[2]),
        }

    async def run(self, command: Command) -> None:
        """Run a command. It must fail if the page says so, with what the page says."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", moved(command.text)),
            env=self.environ,
            cwd=CHART.parents[2],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        text = output.decode()
        fails = command.output.startswith("Error: ")
        assert (process.returncode != 0) is fails, f"{command.text}\n{text}"
        if command.output:
            assert command.output.rpartition("…")[2].strip() in text


async def envoy_gateway(admin: KubeClient) -> None:
    """Give the Gateway an address, as Envoy Gateway does."""
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/gateways/lora-router/status"
    status = {"addresses": [{"type": "IPAddress", "value": GATEWAY_ADDRESS}]}
    merge = "application/merge-patch+json"
    await admin.call("PATCH", path, {"status": status}, content_type=merge)


async def cert_manager(admin: KubeClient) -> None:
    """Create the Secret that cert-manager would create."""
    files = {"tls.crt": "certificate", "tls.key": "key", "ca.crt": "authority"}
    secret = {"metadata": {"name": "lora-router-tls"}, "stringData": files}
    await admin.call("POST", f"/api/v1/namespaces/{NAMESPACE}/secrets", secret)


async def started(kube: KubeServer, admin: KubeClient, folder: Path) -> App:
    """Start the router of the page's release."""
    flags = {"grpc_port": 0, "admin_port": 0}
    router = App(await settings_of("lora-router", NAMESPACE, kube, admin, folder, flags))
    await router.start()
    return router


async def test_each_object_is_one_that_the_api_server_takes(
    admin: KubeClient, resources: crds.Resources
) -> None:
    await inference.install(admin)
    await crds.install_model_adapters(admin)
    await admin.namespace("team-b")
    for document in documents(PAGE):
        for whole in completed(document):
            if whole["kind"] in NO_DEFINITION:
                continue
            whole["metadata"].setdefault("namespace", "models")
            path = await resources.path(whole)
            try:
                await admin.call("POST", path, whole, dryRun="All", fieldValidation="Strict")
            except KubeError as refused:
                pytest.fail(f"{yaml.safe_dump(document)}\n{refused}")


def completed(document: Any) -> list[Document]:
    """Return what a block of the page is a part of, or what the chart makes of it."""
    match document:
        case {"kind": _}:
            return [document]
        case {"spec": {"path": _}} as fragment:
            target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "mine"}
            spec = {**fragment["spec"], "targetRefs": [target]}
            kind = {"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "ClientTrafficPolicy"}
            return [{**kind, "metadata": {"name": "mine"}, "spec": spec}]
        case {"rules": [{"apiGroups": _}, *_]}:
            kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"}
            return [{**kind, "metadata": {"name": "mine"}, **document}]
        case {"rules": [{"seriesQuery": _}, *_]}:
            return []  # The rules of prometheus-adapter. tests/chart reads them.
        case {"metadata": fragment}:
            spec = {"containers": [{"name": "vllm", "image": "vllm"}]}
            kind = {"apiVersion": "v1", "kind": "Pod"}
            return [{**kind, "metadata": {"name": "mine", **fragment}, "spec": spec}]
        case Mapping() as values:
            return render(dict(values))
    raise AssertionError(document)
