"""How the chart gives the routers the token of the page and the debug pages."""

import base64
from pathlib import Path
from typing import Any

from tests.chart.rendering import Document, one, render, secrets
from tests.chart.test_values import in_force, pod_template, router

PLACE = "/etc/lora-router-admin/token"


def mounted(documents: list[Document]) -> dict[str, Any]:
    """The Secret of the volume that holds the token."""
    volumes = pod_template(documents)["spec"]["volumes"]
    [found] = [each["secret"] for each in volumes if each["name"] == "admin-token"]
    return dict(found)


def test_the_router_and_commands_in_its_container_read_the_token_that_the_chart_created() -> None:
    documents = render()

    secret = one(documents, "Secret", "-admin")
    assert mounted(documents)["secretName"] == secret["metadata"]["name"]
    assert mounted(documents)["items"] == [{"key": "token", "path": "token"}]
    [mount] = [each for each in router(documents)["volumeMounts"] if each["name"] == "admin-token"]
    assert f"{mount['mountPath']}/token" == PLACE
    # Commands that are run in the container have its environment, and not its arguments.
    assert {"name": "LORA_ROUTER_ADMIN_TOKEN_FILE", "value": PLACE} in router(documents)["env"]
    token = base64.b64decode(secret["data"]["token"]).decode()
    assert len(token) >= 32
    assert token.isalnum()


def test_no_token_is_created_where_one_is_named() -> None:
    documents = render({"adminToken": {"secretName": "mine", "secretKey": "key"}})

    assert secrets(documents) == ["peers"]
    assert mounted(documents)["secretName"] == "mine"
    assert mounted(documents)["items"] == [{"key": "key", "path": "token"}]


def test_without_a_token_nothing_of_it_is_installed(tmp_path: Path) -> None:
    documents = render({"adminToken": {"enabled": False}})

    assert in_force(documents, tmp_path).admin_token_file is None
    assert "admin-token" not in str(documents)
    assert secrets(documents) == ["peers"]


def test_with_secrets_of_its_own_each_rendering_is_the_same() -> None:
    """As docs/kubernetes.md tells users of Argo CD, which cannot read what is in the cluster."""
    values = {"peering": {"secretName": "routers"}, "adminToken": {"secretName": "routers"}}

    assert render(values) == render(values)
    assert secrets(render(values)) == []
    assert render() != render()
