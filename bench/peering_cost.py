"""What peering costs a router, with each carrier: CPU time, bytes, and how late reports arrive.

    make bench-peering

Each router is a process with a fleet, requests that come and go, and peering on loopback: over gRPC
streams, or over a Valkey or Redis that is started for it. The same requests without peers are
subtracted, so that the result is the cost of peering.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import uvloop

from lora_router.clock import Timer
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.peer_ledgers import LedgerShare
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.grpc_server.server import GrpcServer
from lora_router.peering.addresses import ListedPeers
from lora_router.peering.clients import PeerClients
from lora_router.peering.exchange_call import Exchange
from lora_router.peering.hub import Hub
from lora_router.peering.limits import MAX_MESSAGE_BYTES
from lora_router.peering.mesh import Mesh
from lora_router.peering.pb.peering_pb2 import Report
from lora_router.peering.redis_address import parse_address
from lora_router.peering.redis_channel import RedisChannel
from lora_router.peering.redis_connection import RedisServer
from lora_router.peering.report_reader import ReportReader
from lora_router.peering.secret import Secret
from lora_router.peering.service import PATH, PeerService
from lora_router.supervision import Supervisor
from tests.redis_server import server_binary

_PROMPT_TOKENS = 1_000.0
"""Peers are told of such prompts: they take 0.1 s."""
_REQUEST_SECONDS = 10.0
"""As long as a completion of some hundred tokens."""


class _Clock:
    now = staticmethod(time.monotonic)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, call)


class _Delays:
    """How long reports were on their way. All processes of a host have one monotonic clock."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self._read = ReportReader.read
        setattr(ReportReader, "read", self._timed())  # noqa: B010 -- mypy refuses an assignment

    def _timed(self) -> Callable[[ReportReader, Report], LedgerShare | None]:
        def read(reader: ReportReader, report: Report) -> LedgerShare | None:
            self.milliseconds.append(time.monotonic() * 1000 - report.now_ms)
            return self._read(reader, report)

        return read


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
        reservation = fleet.ledger.reserve(state, _adapter(adapter), tokens=_PROMPT_TOKENS)

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
    delays = _Delays()
    server = GrpcServer(
        {PATH: Exchange(PeerService(mesh, None)).open_call}, max_message_bytes=MAX_MESSAGE_BYTES
    )
    port = await server.start("127.0.0.1", 0)
    print(port, flush=True)
    peers = (await asyncio.to_thread(sys.stdin.readline)).strip()
    if peers.startswith("redis"):
        secret = Secret(Path(peers.partition(" ")[2]))
        address = RedisServer(parse_address(peers.partition(" ")[0]))
        RedisChannel(hub, address, Supervisor(), secret=secret).start()
    elif peers:
        PeerClients(mesh, ListedPeers(peers), Supervisor()).start()
    requests = asyncio.create_task(
        _requests(fleet, args.adapters, args.in_flight // args.routers, args.number)
    )
    await asyncio.sleep(5)
    async with asyncio.timeout(60):
        while peers and len(hub.peers) < args.routers - 1:  # noqa: ASYNC110 -- no event tells
            await asyncio.sleep(0.1)
    before, began = _cpu_seconds(), time.monotonic()
    sent, received = hub.counts.bytes_sent, hub.counts.bytes_received
    reports = hub.counts.reports_sent
    delays.milliseconds.clear()
    await asyncio.sleep(args.seconds)
    seconds = time.monotonic() - began
    result = {
        "cpu": (_cpu_seconds() - before) / seconds,
        "sent": (hub.counts.bytes_sent - sent) / seconds,
        "received": (hub.counts.bytes_received - received) / seconds,
        "reports": (hub.counts.reports_sent - reports) / seconds,
        "p50": quantiles(delays.milliseconds, n=100)[49] if peers else 0.0,
        "p99": quantiles(delays.milliseconds, n=100)[98] if peers else 0.0,
    }
    print(json.dumps(result), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    requests.cancel()


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _measure(args: argparse.Namespace, carrier: str) -> dict[str, float]:
    """Return the means of all routers."""
    with _server(carrier) as server:
        return _measure_with(args, carrier, server)


def _measure_with(
    args: argparse.Namespace, carrier: str, server: "_Server | None"
) -> dict[str, float]:
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
            mesh = ",".join(others) if carrier == "mesh" else ""
            _tell(each, mesh if server is None else server.where)
        before, began = (0.0 if server is None else server.cpu_seconds()), time.monotonic()
        results = [json.loads(_line(each)) for each in routers]
        seconds = time.monotonic() - began
        after = 0.0 if server is None else server.cpu_seconds()
        for each in routers:
            _tell(each, "")
    finally:
        for each in routers:
            each.kill()
            each.wait()
    means = {key: sum(each[key] for each in results) / len(results) for key in results[0]}
    return {**means, "server": (after - before) / seconds}


class _Server:
    """A Valkey or Redis."""

    def __init__(self, where: str, pid: int) -> None:
        self.where = where
        """Its address, and the file with the secret of the routers."""
        self._pid = pid

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _server(carrier: str) -> Iterator[_Server | None]:
    if carrier != "redis":
        yield None
        return
    binary = server_binary()
    if binary is None:
        raise SystemExit("no valkey-server or redis-server on this machine")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        port = kept.getsockname()[1]
        kept.close()
        secret = Path(folder, "secret")
        secret.write_text("a-secret-for-the-bench")
        options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder)
        with subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL) as process:
            try:
                time.sleep(1)
                yield _Server(f"redis://127.0.0.1:{port} {secret}", process.pid)
            finally:
                process.kill()


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _tell(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


ROUTERS = {"mesh": (2, 4, 8, 16), "redis": (2, 4, 8, 16)}


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--carrier", choices=ROUTERS, help="measure this carrier only")
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
    print(
        "| carrier | routers | CPU of a router | CPU of the server | sent | received "
        "| reports sent | delay, p50 | p99 |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    carriers = ROUTERS if args.carrier is None else (args.carrier,)
    only = args.routers
    without: dict[int, float] = {}
    for carrier in carriers:
        for args.routers in ROUTERS[carrier] if only is None else (only,):
            if args.routers not in without:
                without[args.routers] = _measure(args, "")["cpu"]
            result = _measure(args, carrier)
            cpu = 100 * (result["cpu"] - without[args.routers])
            server = f"{100 * result['server']:.1f} %" if carrier == "redis" else ""
            print(
                f"| {carrier} | {args.routers} | {cpu:.1f} % of a core "
                f"| {server} | {result['sent'] / 1000:.1f} KB/s "
                f"| {result['received'] / 1000:.1f} KB/s | {result['reports']:.0f}/s "
                f"| {result['p50']:.1f} ms | {result['p99']:.0f} ms |",
                flush=True,
            )


if __name__ == "__main__":
    main()
