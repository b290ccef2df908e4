"""Custom resource definitions from the Go modules that publish them, and objects by kind."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.chart import CHART
from tests.kube.binaries import module_folder
from tests.kube.server import KubeClient, KubeError

# Pinned in which folder of scripts/go; the module; which files of it.
_SOURCES = (
    ("egctl", "sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_*.yaml"),
    (
        "egctl",
        "github.com/envoyproxy/gateway",
        "charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_*.yaml",
    ),
    *(
        (
            "crds",
            "github.com/prometheus-operator/prometheus-operator",
            f"example/prometheus-operator-crd/monitoring.coreos.com_{name}.yaml",
        )
        for name in ("prometheusrules", "servicemonitors")
    ),
    ("crds", "github.com/kedacore/keda/v2", "config/crd/bases/keda.sh_scaledobjects.yaml"),
)
_ISTIO = ("crds", "istio.io/api", "kubernetes/customresourcedefinitions.gen.yaml")

Document = dict[str, Any]


def definitions() -> list[Document] | None:
    """Return the definitions of the Gateway API, Envoy Gateway, the Prometheus operator and KEDA.

    ``None``: there is no Go to bring them.
    """
    return _read(_SOURCES)


def istio_definitions() -> list[Document] | None:
    """Return the definitions of Istio. ``None``: there is no Go to bring them."""
    return _read((_ISTIO,))


def _read(sources: tuple[tuple[str, str, str], ...]) -> list[Document] | None:
    found: dict[str, Document] = {}
    for pinned, module, pattern in sources:
        folder = module_folder(pinned, module)
        if folder is None:
            return None
        for document in _documents(folder, pattern):
            found[document["metadata"]["name"]] = document
    return list(found.values())


def _documents(folder: Path, pattern: str) -> Iterator[Document]:
    for file in sorted(folder.glob(pattern)):
        for document in yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader):
            if document and document["kind"] == "CustomResourceDefinition":
                yield document


async def install(admin: KubeClient, documents: list[Document]) -> None:
    """Create the definitions that are missing, and wait until the server serves the resources."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for document in documents:
        try:
            await admin.call("POST", path, document)
        except KubeError as error:
            if error.status != 409:
                raise
    async with asyncio.timeout(60):
        for document in documents:
            while not await _served(admin, document["spec"]):
                await asyncio.sleep(0.1)


async def _served(admin: KubeClient, spec: Document) -> bool:
    """Whether objects can be listed, which is later than the API server reports."""
    version = next(each["name"] for each in spec["versions"] if each["served"])
    try:
        await admin.call("GET", f"/apis/{spec['group']}/{version}/{spec['names']['plural']}")
    except KubeError:
        return False
    return True


async def install_model_adapters(admin: KubeClient) -> None:
    """Create the chart's definition of ModelAdapter."""
    file = CHART / "files" / "modeladapters.yaml"
    await install(admin, [yaml.safe_load(file.read_text())])


class Resources:
    """The API paths of each kind."""

    def __init__(self, admin: KubeClient) -> None:
        self._admin = admin
        self._known: dict[str, dict[str, Document]] = {}

    async def path(self, document: Document, *, of_one: bool = False) -> str:
        """Return the path of an object, or of its collection."""
        version = document["apiVersion"]
        if version not in self._known:
            base = f"/apis/{version}" if "/" in version else f"/api/{version}"
            listed = (await self._admin.call("GET", base))["resources"]
            self._known[version] = {
                resource["kind"]: {**resource, "base": base}
                for resource in listed
                if "/" not in resource["name"]
            }
        resource = self._known[version][document["kind"]]
        namespace = document["metadata"].get("namespace", "default")
        scope = f"/namespaces/{namespace}" if resource["namespaced"] else ""
        own = f"/{document['metadata']['name']}" if of_one else ""
        return f"{resource['base']}{scope}/{resource['name']}{own}"
