"""The Service: its address families."""

from typing import Any

from tests.chart.rendering import Document, render
from tests.chart.test_values import behind_envoy_gateway


def spec(values: dict[str, object], name: str = "test-lora-router") -> dict[str, Any]:
    services = [each for each in render(values) if each["kind"] == "Service"]
    [found] = [each for each in services if each["metadata"]["name"] == name]
    specification: Document = found["spec"]
    return specification


def test_the_router_has_an_address_of_each_family_of_the_cluster() -> None:
    assert spec({})["ipFamilyPolicy"] == "PreferDualStack"
    assert "ipFamilies" not in spec({})


def test_the_address_families_can_be_chosen() -> None:
    service = spec({"service": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}})
    assert (service["ipFamilyPolicy"], service["ipFamilies"]) == ("SingleStack", ["IPv6"])
    assert "ipFamilyPolicy" not in spec({"service": {"ipFamilyPolicy": ""}})


def test_a_pod_and_a_router_are_one_endpoint_each() -> None:
    """With both families, each would be in two EndpointSlices."""
    values = {
        **behind_envoy_gateway(backends=[], createService=True),
        "discovery": {"selector": "app=vllm"},
    }
    for name in ("test-lora-router-peers", "test-lora-router-pods"):
        assert "ipFamilyPolicy" not in spec(values, name)
