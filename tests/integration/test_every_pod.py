"""Loads and unloads reach every pod, through a real Envoy."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.envoy import free_port
from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import Gateway, gateway
from tests.integration.routers import site
from tests.waiting import until

pytestmark = pytest.mark.envoy

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@dataclass
class LoadingPod(EchoPod):
    """Loads and unloads adapters, as vLLM does."""

    key: str = ""
    """The API key that it requires."""

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        if request.path not in (LOAD, UNLOAD):
            return await super()._echo(request)
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        name = (await request.json())["lora_name"]
        if request.path == UNLOAD:
            if name not in self.adapters:
                return web.json_response({"error": "not loaded"}, status=404)
            self.adapters = tuple(each for each in self.adapters if each != name)
        elif name in self.adapters:
            return web.json_response({"error": "already loaded"}, status=400)
        else:
            self.adapters = (*self.adapters, name)
        return web.Response(text=f"Success: {name}")


async def post(gate: Gateway, path: str, name: str, **headers: str) -> tuple[int, Any]:
    response, body = await gate.post({"lora_name": name, "lora_path": "/a"}, path, headers)
    return response.status, json.loads(body)


async def listed(gate: Gateway) -> list[str]:
    async with gate.client.get(gate.url + "/v1/models") as response:
        return [model["id"] for model in (await response.json())["data"]]


@pytest.mark.parametrize("mode", ["buffered", "full-duplex"])
async def test_an_adapter_is_loaded_and_unloaded_everywhere(tmp_path: Path, mode: str) -> None:
    pods = [LoadingPod(f"vllm-{number}") for number in range(3)]
    changes: dict[str, Any] = {"envoy_body_mode": mode, "models_refresh_interval_seconds": 3600}
    async with gateway(tmp_path, pods, admin_paths="allow", **changes) as gate:
        await until(lambda: all(state.models_known for state in gate.app.fleet))

        status, answer = await post(gate, LOAD, "new")

        assert status == 200
        assert [(each["pod"], each["status"]) for each in answer["pods"]] == [
            ("vllm-0", 200),
            ("vllm-1", 200),
            ("vllm-2", 200),
        ]
        assert all(pod.adapters == ("new",) for pod in pods)
        # The lists are read at once, not after an hour.
        await until(lambda: len(gate.app.fleet.serving("new").pods) == 3, 60)
        assert await listed(gate) == ["base", "new"]
        response, _ = await gate.post({"model": "new"})
        assert response.status == 200

        status, _ = await post(gate, UNLOAD, "new")

        assert status == 200
        assert all(pod.adapters == () for pod in pods)
        await until(lambda: not gate.app.fleet.serving("new").pods, 60)
        assert gate.in_flight == 0


async def test_what_one_pod_refuses_is_told(tmp_path: Path) -> None:
    last = LoadingPod("vllm-2", address=f"127.0.0.1:{free_port()}")
    pods = [LoadingPod("vllm-0"), LoadingPod("vllm-1", ("new",)), last]
    async with gateway(tmp_path, pods, admin_paths="allow") as gate:
        await until(lambda: all(state.models_known for state in gate.app.fleet))
        await pods[2].__aexit__(None, None, None)

        status, answer = await post(gate, LOAD, "new")

        assert status == 400
        assert [each["status"] for each in answer["pods"]] == [200, 400, 502]
        assert "already loaded" in answer["pods"][1]["answer"]
        assert answer["error"]["code"] == "pods_failed"
        await pods[2].__aenter__()


async def test_pods_check_the_clients_key_and_not_the_routers(tmp_path: Path) -> None:
    pods = [LoadingPod(f"vllm-{number}", key="right") for number in range(2)]
    async with gateway(tmp_path, pods, admin_paths="allow", pod_api_key="right") as gate:
        await until(lambda: all(state.models_known for state in gate.app.fleet))

        without, _ = await post(gate, LOAD, "new")
        wrong, _ = await post(gate, LOAD, "new", authorization="Bearer wrong")
        right, _ = await post(gate, LOAD, "new", authorization="Bearer right")

        assert (without, wrong, right) == (401, 401, 200)


async def test_a_worker_lets_its_parent_read_the_lists_again(tmp_path: Path) -> None:
    pods = [LoadingPod(f"vllm-{number}") for number in range(2)]
    changes: dict[str, Any] = {"workers": 2, "models_refresh_interval_seconds": 3600}
    async with site(
        tmp_path, pods, routers=1, patient=True, admin_paths="allow", **changes
    ) as gate:
        url = f"http://127.0.0.1:{gate.envoy.port}"
        load = {"lora_name": "new", "lora_path": "/a"}
        async with gate.client.post(url + LOAD, json=load) as response:
            assert response.status == 200, await response.text()

        async with asyncio.timeout(60):
            names: list[str] = []
            while "new" not in names:
                async with gate.client.get(url + "/v1/models") as response:
                    names = [model["id"] for model in (await response.json())["data"]]
                await asyncio.sleep(0.05)


async def test_without_the_setting_no_pod_gets_it(tmp_path: Path) -> None:
    pods = [LoadingPod("vllm-0")]
    async with gateway(tmp_path, pods) as gate:
        status, answer = await post(gate, LOAD, "new")

        assert (status, answer["error"]["code"]) == (404, "path_refused")
        assert pods[0].adapters == ()
