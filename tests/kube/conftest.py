"""One API server for all tests of this folder. Each test has its own namespace."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.kube import crds, inference
from tests.kube.binaries import API_SERVER, why_not
from tests.kube.installed import Releases
from tests.kube.server import KubeClient, KubeServer

CHART_NAMESPACE = "models"
"""The namespace for which combinations of values are rendered."""

_numbers = itertools.count(1)
_missing = why_not(API_SERVER)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kube(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KubeServer]:
    """An API server with RBAC."""
    if _missing is not None:
        pytest.skip(_missing)
    server = KubeServer(tmp_path_factory.mktemp("kube"))
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def resources(kube: KubeServer) -> AsyncIterator[crds.Resources]:
    """All custom resources that the chart uses, and the namespaces in its values."""
    definitions = crds.definitions()
    if definitions is None:
        pytest.skip("there is no Go to bring the definitions of custom resources")
    async with kube.admin() as admin:
        await crds.install(admin, definitions)
        await inference.install(admin)
        for name in (CHART_NAMESPACE, "more-models", "gateways"):
            await admin.namespace(name)
        yield crds.Resources(admin)


@pytest_asyncio.fixture(loop_scope="session")
async def admin(kube: KubeServer) -> AsyncIterator[KubeClient]:
    """A client with all permissions."""
    async with kube.admin() as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(admin: KubeClient) -> str:
    """A namespace for one test."""
    name = f"test-{next(_numbers)}"
    await admin.namespace(name)
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for kubeconfig files."""
    return tmp_path


@pytest.fixture
def releases(kube: KubeServer, namespace: str) -> Iterator[Releases]:
    """Helm with all permissions, in the test's namespace."""
    helm = pytest.importorskip("helm_python", reason="no Helm engine for this machine")
    with helm.Config(kubeconfig_path=kube.kubeconfig, namespace=namespace) as config:
        yield config
