"""What names an ID goes to the pod that made it, through a real Envoy."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy
from tests.integration.gateway import Gateway, gateway, write_pods
from tests.integration.id_pod import IdPod
from tests.integration.second_envoy import second_envoy
from tests.waiting import until

pytestmark = pytest.mark.envoy


def pods(number: int = 4) -> list[IdPod]:
    return [IdPod(f"pod-{each}", ("sql",)) for each in range(number)]


async def ask(
    gate: Gateway, method: str, path: str, document: object = None
) -> tuple[int, str, Any]:
    """Return the status, the pod, and the answer."""
    async with gate.client.request(method, gate.url + path, json=document) as response:
        return response.status, response.headers.get("x-pod", ""), await response.json()


async def respond(gate: Gateway, **fields: object) -> tuple[str, str]:
    """Make a response; return its ID and the pod that made it."""
    document = {"model": "sql", "input": "x", **fields}
    async with gate.client.post(gate.url + "/v1/responses", json=document) as response:
        text = await response.text()
        assert response.status == 200, text
        if fields.get("stream"):
            first = text.split("data: ")[1].split("\n")[0]
            return json.loads(first)["response"]["id"], response.headers["x-pod"]
        return json.loads(text)["id"], response.headers["x-pod"]


async def known(gate: Gateway) -> None:
    await until(lambda: all(state.models_known for state in gate.app.fleet))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("mode", ["buffered", "streamed", "full-duplex"])
async def test_a_conversation_stays_on_its_pod(tmp_path: Path, mode: str, stream: bool) -> None:
    async with gateway(tmp_path, pods(), envoy_body_mode=mode) as gate:
        await known(gate)
        for _ in range(4):
            response, pod = await respond(gate, stream=stream)
            following, again = await respond(gate, previous_response_id=response, stream=stream)

            assert again == pod
            for path in (response, f"{following}/input_items", f"{response}?stream=true"):
                status, reader, _ = await ask(gate, "GET", f"/v1/responses/{path}")
                assert (status, reader) == (200, pod)
        await until(lambda: gate.in_flight == 0 and gate.app.transport.open_streams == 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_gateway_that_sends_all_answers_needs_no_override(
    tmp_path: Path, stream: bool
) -> None:
    async with gateway(tmp_path, pods()) as gate:
        await known(gate)
        mode = {
            "request_body_mode": "FULL_DUPLEX_STREAMED",
            "request_trailer_mode": "SEND",
            "response_body_mode": "FULL_DUPLEX_STREAMED",
        }
        envoy = second_envoy(
            gate,
            tmp_path,
            allow_mode_override=False,
            failure_mode_allow=False,
            processing_mode=mode,
        )
        async with envoy:
            gate.envoy = envoy
            for _ in range(4):
                response, pod = await respond(gate, stream=stream)
                _, again = await respond(gate, previous_response_id=response, stream=stream)

                assert again == pod
        await until(lambda: gate.in_flight == 0)


async def test_files_and_batches_stay_on_their_pod(tmp_path: Path) -> None:
    async with gateway(tmp_path, pods()) as gate:
        await known(gate)
        for _ in range(4):
            form = aiohttp.FormData()
            form.add_field("file", b"{}" * 100_000, filename="batch.jsonl")
            async with gate.client.post(gate.url + "/v1/files", data=form) as uploaded:
                pod, file = uploaded.headers["x-pod"], (await uploaded.json())["id"]

            _, batch_pod, batch = await ask(gate, "POST", "/v1/batches", {"input_file_id": file})
            reads = [
                await ask(gate, "GET", f"/v1/files/{file}/content"),
                await ask(gate, "GET", f"/v1/batches/{batch['id']}"),
                await ask(gate, "DELETE", f"/v1/files/{file}"),
            ]

            assert batch_pod == pod
            assert {(status, reader) for status, reader, _ in reads} == {(200, pod)}


async def test_an_unknown_id_is_404_without_a_pod(tmp_path: Path) -> None:
    async with gateway(tmp_path, pods()) as gate:
        await known(gate)

        status, pod, answer = await ask(gate, "GET", "/v1/responses/resp_nobody")

        assert (status, pod, answer["error"]["code"]) == (404, "", "response_not_found")


async def test_an_id_of_a_pod_that_left_is_404_with_the_reason(tmp_path: Path) -> None:
    all_pods = pods(3)
    async with gateway(tmp_path, all_pods) as gate:
        await known(gate)
        response, pod = await respond(gate)
        write_pods(gate.pods_file, [each for each in all_pods if each.name != pod])
        await until(lambda: len(gate.app.fleet) == 2)

        status, _, answer = await ask(gate, "GET", f"/v1/responses/{response}")

        assert status == 404
        assert "the pod that made it is gone" in answer["error"]["message"]


async def test_a_stream_counts_until_it_ends_and_arrives_piece_by_piece(tmp_path: Path) -> None:
    async with gateway(tmp_path, pods(2)) as gate:
        await known(gate)
        document = {"model": "sql", "stream": True, "tokens": 5, "pause": 0.2}
        async with gate.client.post(gate.url + "/v1/responses", json=document) as response:
            first = await response.content.readuntil(b"\n\n")
            counted = gate.in_flight
            rest = await response.content.read()

        assert b"response.created" in first
        assert counted == 1
        assert rest.endswith(b"data: 4\n\n")
        await until(lambda: gate.in_flight == 0)


async def test_a_gateway_that_ignores_the_router_is_reported(tmp_path: Path) -> None:
    async with gateway(tmp_path, pods(2)) as gate:
        await known(gate)
        bootstrap = bootstrap_yaml(gate.settings).replace(
            "allow_mode_override: true", "allow_mode_override: false"
        )
        assert "allow_mode_override: false" in bootstrap
        await gate.envoy.__aexit__(None, None, None)
        async with Envoy(bootstrap, tmp_path, patient=True):
            for _ in range(6):
                await respond(gate)
            await until(lambda: gate.in_flight == 0)

            assert "allow_mode_override" in str(gate.app.gateway.status())
