"""Prefixes of paths, which the printed Envoy removes."""

from pathlib import Path

import pytest

from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway


@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
async def test_the_pod_gets_the_path_without_the_prefix(tmp_path: Path, mode: str) -> None:
    pods = [EchoPod("vllm-0", adapters=("sql-lora",)), EchoPod("vllm-1")]
    changes = {"path_prefixes": "/llm,/llm/eu", "envoy_body_mode": mode}
    async with gateway(tmp_path, pods, **changes) as gate:
        azure = "/openai/deployments/sql-lora/chat/completions"
        for asked, served in {
            "/llm/v1/chat/completions?x=/llm/y": "/v1/chat/completions?x=/llm/y",
            "/llm/eu/v1/responses": "/v1/responses",
            f"/llm{azure}": azure,
            "/v1/chat/completions": "/v1/chat/completions",
            "/llms/generate": "/llms/generate",
        }.items():
            response, answer = await gate.post({"model": "sql-lora"}, asked)

            assert (response.status, response.headers.get("x-pod")) == (200, "vllm-0"), answer
            received = [each for each in gate.received if each.header("target-pod")]
            assert received[-1].path == served
