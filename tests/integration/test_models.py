"""``/v1/models`` through a real Envoy: the router answers, and no pod sees the request."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.waiting import until

pytestmark = pytest.mark.envoy

MANY = 10_000


async def get(gate: Gateway, path: str, **headers: str) -> tuple[int, Any]:
    names = {key.replace("_", "-"): value for key, value in headers.items()}
    async with gate.client.get(gate.url + path, headers=names) as response:
        assert response.content_type == "application/json"
        return response.status, json.loads(await response.read())


@pytest.mark.parametrize("mode", ["buffered", "full-duplex"])
async def test_the_list_is_the_union_of_the_pods(tmp_path: Path, mode: str) -> None:
    pods = [EchoPod("pod-1", ("sql",)), EchoPod("pod-2", ("sql", "team/chat"))]
    async with gateway(tmp_path, pods, envoy_body_mode=mode) as gate:
        await until(lambda: all(state.models_known for state in gate.app.fleet))

        status, listed = await get(gate, "/v1/models")
        _, page = await get(gate, "/v1/models?limit=2", anthropic_version="2023-06-01")
        one_status, one = await get(gate, "/v1/models/team/chat")
        missing, error = await get(gate, "/v1/models/nobody")
        async with gate.client.head(gate.url + "/v1/models") as head:
            head_status, length, body = head.status, head.content_length, await head.read()
        _, again = await get(gate, "/v1/models")

        assert (status, [model["id"] for model in listed["data"]]) == (
            200,
            ["base", "sql", "team/chat"],
        )
        assert again == listed
        assert ([model["id"] for model in page["data"]], page["has_more"]) == (
            ["base", "sql"],
            True,
        )
        assert (one_status, one["id"], one["parent"]) == (200, "team/chat", "base")
        assert (missing, error["error"]["code"]) == (404, "model_not_found")
        assert (head_status, length, body) == (
            200,
            len(json.dumps(listed, separators=(",", ":"))),
            b"",
        )
        assert not gate.received
        assert gate.in_flight == 0


@pytest.mark.parametrize("transport", ["builtin", "grpcio"])
async def test_a_list_of_ten_thousand_adapters_arrives(tmp_path: Path, transport: str) -> None:
    pods = [EchoPod("pod-1", tuple(f"tenant-{n:05}-sql-lora" for n in range(MANY)))]
    async with gateway(tmp_path, pods, transport=transport) as gate:
        await until(lambda: any(len(state.catalog) > MANY for state in gate.app.fleet), 60)

        for _ in range(2):  # The first one waits for the list, and the second one finds it.
            status, listed = await get(gate, "/v1/models")

            assert status == 200
            assert len(listed["data"]) == MANY + 1
            assert len(json.dumps(listed)) > 1_000_000
