"""The turns of a chat go to the pod that has its beginning in the cache, through a real Envoy."""

import json
from pathlib import Path

import pytest

from tests.integration.echo_pod import EchoPod
from tests.integration.gateway import gateway

pytestmark = pytest.mark.envoy

PROSE = "The clerk counted the columns once more, and wrote down what was left. " * 60


def turn(chat: int, turns: int) -> bytes:
    """A turn of a chat, as clients write it: the whole history, then the next question."""
    messages = [{"role": "system", "content": f"You are clerk number {chat}. {PROSE}"}]
    for each in range(turns):
        messages.append({"role": "user", "content": f"Question {each}: {PROSE}"})
        messages.append({"role": "assistant", "content": f"Answer {each}: {PROSE}"})
    del messages[-1]
    return json.dumps({"model": "base", "messages": messages, "stream": turns % 2 == 0}).encode()


@pytest.mark.parametrize(
    ("mode", "transport"), [("buffered", "builtin"), ("full-duplex", "grpcio")]
)
async def test_each_chat_stays_where_its_beginning_is(
    tmp_path: Path, mode: str, transport: str
) -> None:
    pods = [EchoPod(f"vllm-{number}") for number in range(4)]
    settings = {"envoy_body_mode": mode, "transport": transport}
    async with gateway(tmp_path, pods, **settings) as gate:
        served: dict[int, list[str]] = {chat: [] for chat in range(6)}
        for turns in range(1, 5):
            for chat, pods_of_chat in served.items():
                response, _ = await gate.post(
                    turn(chat, turns), headers={"routing-strategy": "lora-placement"}
                )
                assert response.status == 200
                pods_of_chat.append(response.headers["x-pod"])

        assert [len(set(each)) for each in served.values()] == [1] * 6, served

        decisions = gate.app.decisions
        assert decisions is not None
        last = next(iter(decisions))
        assert last.estimated_prompt_tokens == pytest.approx(len(turn(5, 4)) / 4, rel=0.05)
        assert last.expected_cached_tokens == pytest.approx(len(turn(5, 3)) / 4, rel=0.05)
