"""What Envoy does when its own memory or connections run out."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from lora_router.config.settings import Settings
from lora_router.envoy.bootstrap import bootstrap_yaml
from tests.envoy import Envoy, free_port


def envoy(tmp_path: Path, change: Callable[[Any], None] = lambda _: None, **more: object) -> Envoy:
    settings = Settings.model_validate(
        {
            "envoy_listen_host": "127.0.0.1",
            "envoy_listen_port": free_port(),
            "envoy_admin_port": free_port(),
            "grpc_port": free_port(),
            # Nothing waits for a list of pods: no router runs.
            "envoy_pods": "original-dst",
            **more,
        }
    )
    document = yaml.safe_load(bootstrap_yaml(settings))
    change(document)
    return Envoy(yaml.safe_dump(document), tmp_path)


async def test_requests_are_refused_when_the_heap_is_nearly_full(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        manager = document["overload_manager"]
        manager["resource_monitors"][0]["typed_config"]["max_heap_size_bytes"] = "1"
        # With this little, connections would be refused too.
        refuses = "envoy.overload_actions.stop_accepting_requests"
        manager["actions"] = [each for each in manager["actions"] if each["name"] == refuses]

    async with envoy(tmp_path, fill) as gateway, aiohttp.ClientSession() as client:
        await until_overloaded(gateway, "stop_accepting_requests")
        async with client.post(
            f"http://127.0.0.1:{gateway.port}/v1/completions", json={"model": "base"}
        ) as response:
            assert (response.status, response.headers["retry-after"]) == (503, "1")
            assert response.headers["content-type"] == "application/json"
            error = json.loads(await response.read())["error"]
        assert (error["code"], error["type"]) == ("gateway_overloaded", "service_unavailable_error")


async def test_a_full_heap_refuses_connections_and_the_admin_pages_answer(tmp_path: Path) -> None:
    def fill(document: Any) -> None:
        monitor = document["overload_manager"]["resource_monitors"][0]
        monitor["typed_config"]["max_heap_size_bytes"] = "1"

    async with envoy(tmp_path, fill) as gateway:
        await until_overloaded(gateway, "reject_incoming_connections")
        assert await first_byte(gateway) == b""
        assert await gateway.stat("server.live") == 1


async def test_connections_over_the_limit_are_closed(tmp_path: Path) -> None:
    async with envoy(tmp_path, envoy_max_connections=3) as gateway:
        kept = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(3)]
        async with asyncio.timeout(60):
            while await gateway.stat("http.clients.downstream_cx_active") != 3:
                await asyncio.sleep(0.02)
        assert await first_byte(gateway) == b""
        assert await gateway.stat("server.live") == 1

        kept.pop()[1].close()
        async with asyncio.timeout(60):
            while await first_byte(gateway) != b"H":
                await asyncio.sleep(0.02)
        for _, writer in kept:
            writer.close()


@pytest.mark.parametrize("kind", ["override-host", "original-dst"])
async def test_nothing_is_shed_at_rest(tmp_path: Path, kind: str) -> None:
    smallest = 64 * 1024 * 1024
    async with envoy(tmp_path, envoy_max_heap_bytes=smallest, envoy_pods=kind) as gateway:
        assert await first_byte(gateway) == b"H"
        for action in ("shrink_heap", "stop_accepting_requests"):
            assert await gateway.stat(f"overload.envoy.overload_actions.{action}.active") == 0


async def until_overloaded(gateway: Envoy, action: str) -> None:
    async with asyncio.timeout(60):
        while not await gateway.stat(f"overload.envoy.overload_actions.{action}.active"):
            await asyncio.sleep(0.02)


async def first_byte(gateway: Envoy) -> bytes:
    """Return the first byte of an answer; nothing if the connection is closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n")
        async with asyncio.timeout(60):
            return await reader.read(1)
    except ConnectionError:
        return b""
    finally:
        writer.close()
