"""Run one simulated pod: ``python -m lora_router.simulator --name pod-0 --adapters a1,a2``.

Prints one line of JSON when it listens. Ends on SIGTERM, and when its standard input ends, which it
does when the process that started it is gone, however that went.
"""

import argparse
import asyncio
import json
import os
import signal
import sys

from lora_router.simulator.engine import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod


def parse_arguments(arguments: list[str]) -> PodOptions:
    """Read the command line. Ends the process with status 2 if it is wrong."""
    defaults = EngineOptions()
    parser = argparse.ArgumentParser(
        prog="python -m lora_router.simulator",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--name", required=True, help="the pod's name")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=0, help="0: any")
    add("--base", default="base", help="name of the base model")
    add("--adapters", default="", help="names joined by commas")
    add("--preload", action="store_true", help="all adapters are in host memory from the start")
    add("--max-loras", type=int, default=defaults.max_loras, help="slots")
    add("--max-cpu-loras", type=int, default=defaults.max_cpu_loras, help="room in host memory")
    add("--max-num-seqs", type=int, default=defaults.max_num_seqs, help="requests in the batch")
    add("--step-ms", type=float, default=defaults.step_seconds * 1000, help="an empty step")
    add("--step-ms-per-request", type=float, default=defaults.step_seconds_per_request * 1000)
    add("--prefill-ms-per-token", type=float, default=defaults.prefill_seconds_per_token * 1000)
    add("--host-load-ms", type=float, default=defaults.host_load_seconds * 1000)
    add("--disk-load-ms", type=float, default=defaults.disk_load_seconds * 1000)
    add("--loads-do-not-block", action="store_true", help="a load does not stall the batch")
    add("--stream-interval", type=int, default=1, help="tokens in an event after the first")
    given = parser.parse_args(arguments)
    try:
        return PodOptions(
            name=given.name,
            base=given.base,
            adapters=tuple(name for name in given.adapters.split(",") if name),
            preload=given.preload,
            host=given.host,
            port=given.port,
            stream_interval=given.stream_interval,
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
            ),
        )
    except ValueError as error:
        parser.error(str(error))


def _end_with_standard_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    descriptor = sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.set()

    try:
        loop.add_reader(descriptor, read)
    except OSError:
        # A file or /dev/null, which cannot be watched and is nobody's life line.
        return


async def serve(options: PodOptions) -> None:
    """Serve until SIGTERM, SIGINT, or the end of standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if sys.stdin is not None:
        _end_with_standard_input(loop, stop)
    async with SimulatedPod(options) as pod:
        port = int(pod.address.rpartition(":")[2])
        line = {"name": options.name, "address": pod.address, "port": port, "pid": os.getpid()}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    chosen = parse_arguments(sys.argv[1:])
    try:
        asyncio.run(serve(chosen))
    except OSError as error:
        sys.exit(f"{chosen.name} cannot listen on {chosen.host}:{chosen.port}: {error}")
