"""Run one simulated pod: ``python -m lora_router.simulator --name pod-0 --adapters a1,a2``.

Prints one line of JSON when it listens. Ends on SIGTERM, and when its standard input ends, which it
does when the process that started it is gone, however that went.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys

from lora_router.simulator.engine import EngineOptions
from lora_router.simulator.pod import PodOptions, SimulatedPod


def parse_arguments(arguments: list[str]) -> PodOptions:
    """Read the command line."""
    defaults = EngineOptions()
    parser = argparse.ArgumentParser(prog="python -m lora_router.simulator", description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0, help="0: any")
    parser.add_argument("--base", default="base")
    parser.add_argument("--adapters", default="", help="names joined by commas")
    parser.add_argument("--max-loras", type=int, default=defaults.max_loras)
    parser.add_argument("--max-cpu-loras", type=int, default=defaults.max_cpu_loras)
    parser.add_argument("--step-ms", type=float, default=defaults.step_seconds * 1000)
    parser.add_argument("--host-load-ms", type=float, default=defaults.host_load_seconds * 1000)
    parser.add_argument("--disk-load-ms", type=float, default=defaults.disk_load_seconds * 1000)
    given = parser.parse_args(arguments)
    return PodOptions(
        name=given.name,
        base=given.base,
        adapters=tuple(name for name in given.adapters.split(",") if name),
        port=given.port,
        engine=EngineOptions(
            max_loras=given.max_loras,
            max_cpu_loras=given.max_cpu_loras,
            step_seconds=given.step_ms / 1000,
            host_load_seconds=given.host_load_ms / 1000,
            disk_load_seconds=given.disk_load_ms / 1000,
        ),
    )


def _read_input(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stop.set()


async def serve(options: PodOptions) -> None:
    """Serve until SIGTERM, SIGINT, or the end of standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    with contextlib.suppress(OSError):  # Standard input can be a file, which cannot be watched.
        loop.add_reader(sys.stdin, _read_input, stop)
    async with SimulatedPod(options) as pod:
        address = pod.address
        line = {"name": options.name, "address": address, "pid": os.getpid()}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(parse_arguments(sys.argv[1:])))
