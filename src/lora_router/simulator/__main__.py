"""Run simulated pods: ``python -m lora_router.simulator --name pod-0 --adapters a1,a2``.

Prints one line of JSON for each pod when it listens. Exits on SIGTERM and at the end of its
standard input, which is reached when the process that started it has exited for any reason.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod

_MOST_PODS = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """What is run."""

    pods: tuple[PodOptions, ...]
    pods_file: Path | None
    """Where the list of the pods is written to, for the router."""


def parse_arguments(arguments: list[str]) -> Plan:
    """Read the command line. Exits with status 2 if it is invalid."""
    defaults = EngineOptions()
    parser = argparse.ArgumentParser(
        prog="python -m lora_router.simulator",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    milliseconds = {
        "--step-ms": (defaults.step_seconds, "duration of a step without requests"),
        "--step-ms-per-request": (
            defaults.step_seconds_per_request,
            "what each running request adds to a step",
        ),
        "--prefill-ms-per-token": (
            defaults.prefill_seconds_per_token,
            "what each prompt token adds to the first step of its request",
        ),
        "--host-load-ms": (
            defaults.host_load_seconds,
            "time to load an adapter from host memory",
        ),
        "--disk-load-ms": (
            defaults.disk_load_seconds,
            "time to load an adapter that is not in host memory",
        ),
    }
    numbers = {
        "--port": (0, "port to listen on; 0: any free port"),
        "--max-loras": (defaults.max_loras, "adapter slots"),
        "--max-cpu-loras": (defaults.max_cpu_loras, "adapters that fit in host memory"),
        "--max-num-seqs": (defaults.max_num_seqs, "requests in a batch"),
        "--kv-cache-tokens": (
            defaults.kv_cache_tokens,
            "tokens that fit in the KV cache, those of the prefix cache included",
        ),
        "--block-size": (defaults.block_tokens, "tokens in a block of the KV cache"),
        "--stream-interval": (1, "tokens in each event of a stream after the first event"),
    }
    add = parser.add_argument
    add("--name", required=True, help="the pod's name, or what the names of several begin with")
    add("--count", type=int, help="so many pods, NAME-1 and so on, on consecutive ports")
    add("--pods-file", type=Path, help="write the list of the pods for the router to this file")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--base", default="base", help="name of the base model")
    add("--adapters", default="", help="names of adapters, separated by commas")
    add("--preload", action="store_true", help="start with all adapters in host memory")
    add(
        "--no-runtime-loading",
        action="store_true",
        help="have no calls that load and unload adapters",
    )
    for flag, (number, meaning) in numbers.items():
        add(flag, type=int, default=number, help=meaning)
    for flag, (seconds, meaning) in milliseconds.items():
        add(flag, type=float, default=seconds * 1000, help=meaning)
    add(
        "--loads-do-not-block",
        action="store_true",
        help="loads delay only the requests of their adapter",
    )
    add(
        "--max-num-batched-tokens",
        type=int,
        default=defaults.chunk_tokens,
        help="tokens that a step computes at most; without it, prompts are computed whole",
    )
    add(
        "--enable-prefix-caching",
        action="store_true",
        help="keep KV blocks of past requests, for prompts with the same beginning",
    )
    add(
        "--preemption",
        action="store_true",
        help="take KV blocks as tokens are computed, and preempt the last request without any",
    )
    add(
        "--enable-prompt-tokens-details",
        action="store_true",
        help="name the cached tokens of a prompt in the usage of its answer",
    )
    given = parser.parse_args(arguments)
    if given.count is not None and not 1 <= given.count <= _MOST_PODS:
        parser.error(f"--count must be from 1 to {_MOST_PODS}, not {given.count}")
    try:
        pod = PodOptions(
            name=given.name,
            base=given.base,
            adapters=tuple(name for name in given.adapters.split(",") if name),
            preload=given.preload,
            runtime_loading=not given.no_runtime_loading,
            host=given.host,
            port=given.port,
            stream_interval=given.stream_interval,
            prompt_tokens_details=given.enable_prompt_tokens_details,
            engine=EngineOptions(
                max_loras=given.max_loras,
                max_cpu_loras=given.max_cpu_loras,
                max_num_seqs=given.max_num_seqs,
                step_seconds=given.step_ms / 1000,
                step_seconds_per_request=given.step_ms_per_request / 1000,
                prefill_seconds_per_token=given.prefill_ms_per_token / 1000,
                host_load_seconds=given.host_load_ms / 1000,
                disk_load_seconds=given.disk_load_ms / 1000,
                loads_block=not given.loads_do_not_block,
                kv_cache_tokens=given.kv_cache_tokens,
                block_tokens=given.block_size,
                prefix_caching=given.enable_prefix_caching,
                chunk_tokens=given.max_num_batched_tokens,
                preemption=given.preemption,
            ),
        )
    except ValueError as error:
        parser.error(str(error))
    return Plan(_pods(pod, given.count), given.pods_file)


def _pods(pod: PodOptions, count: int | None) -> tuple[PodOptions, ...]:
    if count is None:
        return (pod,)
    return tuple(
        replace(pod, name=f"{pod.name}-{number + 1}", port=pod.port and pod.port + number)
        for number in range(count)
    )


def _list_of(pods: Sequence[SimulatedPod]) -> str:
    """Return the list of pods for the router, as its setting ``endpoints`` takes it."""
    entries = [
        {
            "name": pod.options.name,
            "address": pod.address,
            "engine": "vllm",
            "max_cpu_loras": pod.options.engine.max_cpu_loras,
        }
        for pod in pods
    ]
    return yaml.safe_dump({"pods": entries}, sort_keys=False)


def _end_with_standard_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    descriptor = sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.set()

    try:
        loop.add_reader(descriptor, read)
    except OSError:
        # A file or /dev/null cannot be watched, and does not end with the parent process.
        return


async def serve(plan: Plan) -> None:
    """Serve until SIGTERM, SIGINT, or the end of standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if sys.stdin is not None:
        _end_with_standard_input(loop, stop)
    async with AsyncExitStack() as stack:
        pods = []
        for options in plan.pods:
            try:
                pods.append(await stack.enter_async_context(SimulatedPod(options)))
            except OSError as error:
                where = f"{options.host}:{options.port}"
                sys.exit(f"{options.name} cannot listen on {where}: {error}")
        if plan.pods_file is not None:
            plan.pods_file.write_text(_list_of(pods))
        for pod in pods:
            port = int(pod.address.rpartition(":")[2])
            name = pod.options.name
            line = {"name": name, "address": pod.address, "port": port, "pid": os.getpid()}
            sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    chosen = parse_arguments(sys.argv[1:])
    try:
        asyncio.run(serve(chosen))
    except OSError as error:
        sys.exit(f"{chosen.pods_file} cannot be written: {error.strerror}")
