"""The access log of Envoy Gateway has the router's decisions, as the printed Envoy's has."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_router.config.settings import Settings
from lora_router.envoy.access_log import log_fields
from tests.chart.rendering import render
from tests.kube.binaries import GATEWAY_TRANSLATOR, why_not
from tests.kube.gateway_config import connection_manager, translate
from tests.kube.gateway_install import gateway_values

_missing = why_not(GATEWAY_TRANSLATOR)
pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
]

PODS = {("models", "base"): ["127.0.0.1:8001"]}
DOCS = Path(__file__).parents[2] / "docs" / "envoy.md"


async def logged(documents: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    """Return the fields of the access log that Envoy Gateway configures."""
    translated = await translate(documents, folder, PODS)
    [(_, found)] = translated["xds"].items()
    managers = [
        connection_manager(listener)
        for listener in _listeners(found)
        if "defaultFilterChain" in listener
    ]
    [manager] = managers
    [log] = manager["accessLog"]
    fields: dict[str, str] = log["typedConfig"]["logFormat"]["jsonFormat"]
    return fields


def _listeners(found: Any) -> list[dict[str, Any]]:
    return [
        each["activeState"]["listener"]
        for part in found["configs"]
        for each in part.get("dynamicListeners", ())
    ]


async def test_the_charts_log_is_the_printed_one(tmp_path: Path) -> None:
    documents = render(gateway_values(("models", "base"), accessLog=True))

    assert await logged(documents, tmp_path) == log_fields(Settings())


async def test_what_the_docs_say_to_add_is_accepted(tmp_path: Path) -> None:
    documents = render(gateway_values(("models", "base"), accessLog=True))
    text = DOCS.read_text().partition("```yaml\nspec:\n  telemetry:")[2].partition("```")[0]
    [proxy] = [each for each in documents if each["kind"] == "EnvoyProxy"]
    proxy["spec"] = yaml.safe_load("spec:\n  telemetry:" + text)["spec"]

    fields = await logged(documents, tmp_path)

    assert fields["pod"] == "%DYNAMIC_METADATA(io.lora_router:pod)%"
    assert fields.items() <= log_fields(Settings()).items()


async def test_without_the_value_the_gateway_has_no_envoyproxy() -> None:
    kinds = {each["kind"] for each in render(gateway_values(("models", "base")))}

    assert "EnvoyProxy" not in kinds
