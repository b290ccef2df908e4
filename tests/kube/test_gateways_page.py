"""docs/gateways.md: a real API server takes each object whose definition can be had."""

import pytest
import yaml

from tests.chart.rendering import render
from tests.kube import crds, inference
from tests.kube.conftest import CHART_NAMESPACE
from tests.kube.server import KubeClient, KubeError
from tests.pages import DOCS, documents

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGE = (DOCS / "gateways.md").read_text()
NO_DEFINITION = {"HealthCheckPolicy", "GCPBackendPolicy"}
"""Kinds of GKE, whose definitions are in no Go module."""


async def test_the_api_server_takes_each_object(
    admin: KubeClient, resources: crds.Resources
) -> None:
    istio = crds.istio_definitions()
    if istio is None:
        pytest.skip("there is no Go to bring Istio's definitions")
    await crds.install(admin, istio)
    await inference.install(admin)
    taken = set()
    for document in documents(PAGE):
        if "kind" not in document or document["kind"] in NO_DEFINITION:
            continue
        document["metadata"]["namespace"] = CHART_NAMESPACE
        path = await resources.path(document)
        try:
            await admin.call("POST", path, document, dryRun="All", fieldValidation="Strict")
        except KubeError as refused:
            pytest.fail(f"{yaml.safe_dump(document)}\n{refused}")
        taken.add(document["kind"])
    assert taken == {
        "BackendTLSPolicy",
        "DestinationRule",
        "EnvoyFilter",
        "Gateway",
        "HTTPRoute",
        "InferencePool",
        "Ingress",
    }


async def test_the_chart_takes_the_values() -> None:
    values = [each for each in documents(PAGE) if "gateway" in each and "kind" not in each]
    modes = [each["gateway"]["mode"] for each in values]
    assert modes == ["envoy-gateway", "inferencepool", "sidecar"]
    for each in values:
        assert render(each)
