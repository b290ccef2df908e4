"""``lora-router doctor`` as a process, against a real router and pods."""

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.envoy import free_port
from tests.integration.echo_pod import EchoPod
from tests.integration.served import Served

pytestmark = pytest.mark.asyncio

SLOW_MACHINE = {"loop-lag", "loop-stalls", "scrape-errors"}
"""What is found in any fleet if the machine is busy enough."""


def page(*, slots: int = 4, running: int = 0, clock: float = 0.0) -> str:
    """A metrics page of vLLM."""
    now = time.time() + clock
    return (
        f"process_start_time_seconds {now - 60}\n"
        f'vllm:num_requests_running{{engine="0",model_name="base"}} {running}\n'
        'vllm:num_requests_waiting{engine="0",model_name="base"} 0.0\n'
        f'vllm:lora_requests_info{{max_lora="{slots}",running_lora_adapters="",'
        f'waiting_lora_adapters=""}} {now - 60}\n'
    )


@dataclass
class Answer:
    """What the command did."""

    status: int
    output: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output)
        return found

    @property
    def findings(self) -> dict[str, str]:
        """The severity of each finding."""
        return {each["check"]: each["severity"] for each in self.document["findings"]}


async def doctor(*arguments: object) -> Answer:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lora_router", "doctor", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return Answer(process.returncode, output.decode(), errors.decode())


@asynccontextmanager
async def router(
    directory: Path,
    pods: Sequence[EchoPod],
    entries: Sequence[dict[str, object]] = (),
    **config: object,
) -> AsyncIterator[Served]:
    """Run a router over pods, and over further entries of the pods file."""
    async with AsyncExitStack() as stack:
        listed = list(entries)
        for pod in pods:
            await stack.enter_async_context(pod)
            listed.append({"name": pod.name, "address": pod.address})
        served = Served(directory, config)
        (directory / "pods.yaml").write_text(yaml.safe_dump({"pods": listed}))
        await stack.enter_async_context(served.run())
        await served.until_ready()
        yield served


async def test_nothing_is_wrong_with_a_healthy_fleet(tmp_path: Path) -> None:
    pods = [EchoPod(name, ("sql", "chat"), page=page()) for name in ("pod-a", "pod-b")]
    async with router(tmp_path, pods) as served:
        found, shown = await asyncio.gather(
            doctor("--config", served.file, "--json"),
            doctor("--admin", f"http://127.0.0.1:{served.admin_port}"),
        )
    assert found.findings.keys() <= SLOW_MACHINE
    assert (found.status, found.document["pods"]) == (0, 2)
    assert (shown.status, shown.errors) == (0, "")
    assert shown.output.endswith(". Looked at 1 router, 2 pods.\n")


async def test_each_fault_of_a_fleet_has_its_finding(tmp_path: Path) -> None:
    pods = [
        EchoPod("pod-a", ("sql", "chat"), page=page(slots=1, running=3)),
        EchoPod("pod-b", ("sql", "sql-2", "sql-3"), page=page(slots=2, running=2)),
        EchoPod("pod-c", ("sql", "chat"), page=page(slots=1, clock=600.0)),
        EchoPod("pod-d", ("sql", "chat"), page="http_requests_total 3.0\n"),
    ]
    gone: dict[str, object] = {"name": "pod-gone", "address": f"127.0.0.1:{free_port()}"}
    # A base model of this name is an adapter of the others.
    gone["models"] = ["chat"]
    config = {"algorithm": "least-request", "decisions": 0}
    async with router(tmp_path, pods, [gone], **config) as served:
        asked = ("--config", served.file)
        found, shown = await asyncio.gather(doctor(*asked, "--json"), doctor(*asked))
    assert (found.status, found.errors) == (1, "")
    assert (
        found.findings.items()
        >= {
            "ambiguous-names": "error",
            "stale-pods": "warning",
            "no-peering": "warning",
            "clock-differences": "warning",
            "pods-without-load": "warning",
            "one-slot": "warning",
            "different-models": "warning",
            "one-pod-only": "hint",
            "different-slots": "hint",
            "blind-algorithm": "warning",
            "decisions-off": "hint",
        }.items()
    )
    what = {each["check"]: each["what"] for each in found.document["findings"]}
    assert "5 of 5 requests on the pods" in what["no-peering"]
    assert re.search(r"The clock of pod-c is \d{3} s ahead", what["clock-differences"])
    assert shown.status == 1
    for check in found.findings.keys() - SLOW_MACHINE:
        assert f" {check}: " in shown.output


async def test_a_router_that_cannot_be_asked_ends_the_command_with_the_reason() -> None:
    answer = await doctor("--admin", f"http://127.0.0.1:{free_port()}", "--json")
    assert (answer.status, answer.output) == (1, "")
    assert "no router answers" in answer.errors
    assert "--admin names the admin port of another" in answer.errors


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (("--admin", "127.0.0.1:8080"), 2, "--admin 127.0.0.1:8080: must be http://HOST:PORT"),
        (("--admin", "http://h", "--token-file", "none"), 2, "none: cannot be read"),
    ],
)
async def test_wrong_arguments_are_named(arguments: Sequence[str], status: int, error: str) -> None:
    answer = await doctor(*arguments)
    assert answer.status == status
    assert error in answer.errors
