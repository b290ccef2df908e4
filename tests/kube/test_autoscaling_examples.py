"""The examples of docs/autoscaling.md on a real API server, with KEDA's own definition."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kube import crds
from tests.kube.conftest import CHART_NAMESPACE
from tests.kube.server import KubeClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLES = Path(__file__).parents[2] / "deploy/examples"


@pytest.mark.parametrize("name", ["vllm-keda.yaml", "vllm-hpa.yaml"])
async def test_the_api_server_takes_the_example(
    name: str, admin: KubeClient, resources: crds.Resources
) -> None:
    document: dict[str, Any] = yaml.safe_load((EXAMPLES / name).read_text())
    assert document["metadata"]["namespace"] == CHART_NAMESPACE
    path = await resources.path(document)
    taken = await admin.call("POST", path, document, dryRun="All", fieldValidation="Strict")
    assert taken["spec"]["scaleTargetRef"]["name"] == "vllm-llama"
