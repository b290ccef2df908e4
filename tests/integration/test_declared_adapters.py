"""Adapters that are declared: loaded on first use, and replaced by new versions, behind Envoy."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_router.adapters import versions
from lora_router.adapters.declarations import derived_version
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod
from tests.integration.gateway import Gateway, gateway
from tests.waiting import until

pytestmark = pytest.mark.envoy

NEW = f"sql@{derived_version('/adapters/two')}"


def pods(number: int = 2) -> list[SimulatedPod]:
    return [
        SimulatedPod(PodOptions(name=f"vllm-{each}", adapters=(), runtime_loading=True))
        for each in range(number)
    ]


def declare(path: Path, **sections: object) -> str:
    path.write_text(yaml.safe_dump(sections))
    return str(path)


def sql(source: str) -> dict[str, object]:
    return {
        "name": "sql",
        "base_model": "base",
        "source": source,
        "aliases": ["gpt"],
        "pods": "all",
    }


async def ask(gate: Gateway, model: str) -> tuple[int, Any, Mapping[str, str]]:
    response, body = await gate.post(
        {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    )
    return response.status, json.loads(body), response.headers


async def test_an_adapter_of_a_template_is_loaded_on_first_use(tmp_path: Path) -> None:
    file = declare(
        tmp_path / "adapters.yaml",
        templates=[
            {"base_model": "base", "names": "tenant-*", "source": "/adapters/{name}", "pods": 1},
            {"base_model": "base", "names": "broken-*", "source": "/missing/{name}"},
        ],
    )
    simulated = pods()
    async with gateway(
        tmp_path,
        simulated,
        adapters_file=file,
        adapter_sources="/adapters,/missing",
        first_use_seconds=120.0,
        envoy_message_timeout_seconds=60.0,
    ) as gate:
        found = await asyncio.gather(*(ask(gate, f"tenant-{each % 3}") for each in range(9)))
        assert [status for status, _, _ in found] == [200] * 9
        assert [body["model"] for _, body, _ in found] == [
            f"tenant-{each % 3}" for each in range(9)
        ]
        roots = {name: root for pod in simulated for name, root in pod.adapters.roots.items()}
        assert roots == {f"tenant-{each}": f"/adapters/tenant-{each}" for each in range(3)}

        status, body, headers = await ask(gate, "broken-1")
        assert (status, body["error"]["code"]) == (503, "adapter_not_loaded")
        assert "'broken-1' is not loaded" in body["error"]["message"]
        assert "missing" not in json.dumps(body)
        assert int(headers["retry-after"]) >= 1
        assert headers["x-error-no-model-backends"] == "true"

        assert (await ask(gate, "other-1"))[0] == 404
        assert (await ask(gate, "tenant-..%2f"))[0] == 404
        assert gate.app.director.held == 0


async def test_no_request_fails_while_a_new_source_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "QUIET_SECONDS", 0.5)
    path = tmp_path / "adapters.yaml"
    file = declare(path, adapters=[sql("/adapters/one")])
    simulated = pods()
    async with gateway(
        tmp_path,
        simulated,
        adapters_file=file,
        answer_model="asked",
        envoy_message_timeout_seconds=60.0,
    ) as gate:
        assert (await ask(gate, "sql"))[0] == 200
        await until(lambda: all("sql" in pod.adapters for pod in simulated))
        answers: list[tuple[int, str]] = []
        over = asyncio.Event()

        async def client(model: str) -> None:
            while not over.is_set():
                status, body, _ = await ask(gate, model)
                answers.append((status, body.get("model", "")))

        clients = [asyncio.create_task(client(model)) for model in ("sql", "gpt", "sql")]
        declare(path, adapters=[sql("/adapters/two")])
        await until(lambda: all(set(pod.adapters.roots) == {NEW} for pod in simulated))
        seen = len(answers)
        await until(lambda: len(answers) > seen + 10)
        over.set()
        await asyncio.gather(*clients)

        assert set(answers) == {(200, "sql"), (200, "gpt")}
        assert {pod.adapters.roots[NEW] for pod in simulated} == {"/adapters/two"}
