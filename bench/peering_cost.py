"""What peering costs a router: CPU time and bytes, with real streams between processes.

    make bench-peering

Each router is a process with a fleet, requests that come and go, and peering over gRPC on loopback.
The same requests without peers are subtracted, so that the result is the cost of peering.
"""

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import uvloop

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.grpc_server.server import GrpcServer
from lora_router.peering.addresses import ListedPeers
from lora_router.peering.clients import PeerClients
from lora_router.peering.exchange_call import Exchange
from lora_router.peering.hub import Hub, Timer
from lora_router.peering.limits import MAX_MESSAGE_BYTES
from lora_router.peering.mesh import Mesh
from lora_router.peering.service import PATH, PeerService
from lora_router.supervision import Supervisor

_REQUEST_SECONDS = 10.0
"""As long as a completion of some hundred tokens."""


class _Clock:
    now = staticmethod(time.monotonic)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, call)


def _fleet(pods: int, adapters: int) -> Fleet:
    fleet = Fleet()
    fleet.replace(
        Pod(f"models/llama-{n:04d}", f"10.0.{n >> 8}.{n & 255}:8000", "", "") for n in range(pods)
    )
    models = [ServedModel("base"), *(ServedModel(_adapter(n), "base") for n in range(adapters))]
    lora = LoraActivity(max_lora=32, running=frozenset(), waiting=frozenset(), updated_at=1.0)
    for state in fleet:
        fleet.put_models(state, models)
        fleet.put_metrics(
            state, PodMetrics(scraped_at=time.monotonic(), running=0.0, waiting=0.0, lora=lora)
        )
    return fleet


def _adapter(number: int) -> str:
    return f"customer-{number:05d}-sql-lora"


async def _requests(fleet: Fleet, adapters: int, in_flight: int, seed: int) -> None:
    """Keep so many requests in flight."""
    rng = random.Random(seed)
    states = list(fleet)
    loop = asyncio.get_running_loop()

    def begin() -> None:
        adapter = rng.randrange(adapters)
        # A few pods for each adapter, as placement would have it.
        state = states[(adapter * 7 + rng.randrange(2)) % len(states)]
        reservation = fleet.ledger.reserve(state, _adapter(adapter))

        def end() -> None:
            reservation.release()
            begin()

        # At the start they are in the middle of their lives.
        share = rng.uniform(0.5, 1.5) if started else rng.random()
        loop.call_later(share * _REQUEST_SECONDS, end)

    started = False
    for _ in range(in_flight):
        begin()
    started = True
    await asyncio.Event().wait()


async def _router(args: argparse.Namespace) -> None:
    fleet = _fleet(args.pods, args.adapters)
    hub = Hub(f"router-{args.number}", fleet, dict, _Clock())
    mesh = Mesh(hub)
    server = GrpcServer(
        {PATH: Exchange(PeerService(mesh, None)).open_call}, max_message_bytes=MAX_MESSAGE_BYTES
    )
    port = await server.start("127.0.0.1", 0)
    print(port, flush=True)
    peers = (await asyncio.to_thread(sys.stdin.readline)).strip()
    if peers:
        PeerClients(mesh, ListedPeers(peers), Supervisor()).start()
    requests = asyncio.create_task(
        _requests(fleet, args.adapters, args.in_flight // args.routers, args.number)
    )
    await asyncio.sleep(5)
    async with asyncio.timeout(30):
        while peers and len(hub.peers) < args.routers - 1:  # noqa: ASYNC110 -- no event tells
            await asyncio.sleep(0.1)
    before, began = _cpu_seconds(), time.monotonic()
    sent, received = hub.counts.bytes_sent, hub.counts.bytes_received
    reports = hub.counts.reports_sent
    await asyncio.sleep(args.seconds)
    seconds = time.monotonic() - began
    result = {
        "cpu": (_cpu_seconds() - before) / seconds,
        "sent": (hub.counts.bytes_sent - sent) / seconds,
        "received": (hub.counts.bytes_received - received) / seconds,
        "reports": (hub.counts.reports_sent - reports) / seconds,
    }
    print(json.dumps(result), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    requests.cancel()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _measure(args: argparse.Namespace, *, peering: bool) -> dict[str, float]:
    """Return the means of all routers."""
    command = [sys.executable, "-m", "bench.peering_cost"]
    for name in ("pods", "adapters", "in_flight", "routers", "seconds"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    routers = [
        subprocess.Popen(
            [*command, "--number", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(1, args.routers + 1)
    ]
    try:
        ports = [_line(each).strip() for each in routers]
        for number, each in enumerate(routers):
            others = [f"127.0.0.1:{port}" for port in ports[:number] + ports[number + 1 :]]
            _tell(each, ",".join(others) if peering else "")
        results = [json.loads(_line(each)) for each in routers]
        for each in routers:
            _tell(each, "")
    finally:
        for each in routers:
            each.kill()
            each.wait()
    return {key: sum(each[key] for each in results) / len(results) for key in results[0]}


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _tell(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


ROWS = ((2, 100, 1000), (4, 100, 1000), (8, 100, 1000))
"""Routers, pods, and requests in flight of all routers."""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routers", type=int, help="measure this number of routers only")
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=1000, help="requests of all routers")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--number", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.number:
        uvloop.run(_router(args))
        return
    rows = ROWS if args.routers is None else ((args.routers, args.pods, args.in_flight),)
    print("| routers | pods | requests in flight | CPU | sent | received | reports sent |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for args.routers, args.pods, args.in_flight in rows:
        without = _measure(args, peering=False)
        result = _measure(args, peering=True)
        cpu = result["cpu"] - without["cpu"]
        print(
            f"| {args.routers} | {args.pods:,} | {args.in_flight:,} | {100 * cpu:.1f} % of a core "
            f"| {result['sent'] / 1000:.1f} KB/s | {result['received'] / 1000:.1f} KB/s "
            f"| {result['reports']:.0f}/s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
