"""What the parts of the request path cost: ``make bench-parts`` (``ARGS="--json --quick"``).

A figure is the CPU time of this process divided by the number of calls, in the best of some rounds,
so that other processes disturb it little. A *decision* is one call of an algorithm. *Routed* is the
whole call of the director: it looks up the pods that serve the model, asks the algorithm, counts
the request, and releases an older one. A *conversation* is a whole request without the transport:
parse the messages, route, and encode the answers. ``held`` measures what changes cost while
requests are held.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from unittest.mock import patch

import msgspec

from bench import goals, held, observed, prompts
from bench.builtin_requests import context_of, requests, requests_by_observation
from bench.envoys import PAGES
from bench.fleets import PROMPT_CHUNKS, BenchFleet, pod_object
from bench.instructions import count_in_new_process, is_counting
from bench.noop import NoSession
from bench.outside_algorithm import FewestRequests
from bench.plan import DEFAULT_ALGORITHM
from bench.stopwatch import microseconds
from bench.workload import adapter, answer_message, body, ext_proc_messages
from lora_router.discovery.pod_object import PodObject
from lora_router.discovery.pod_ports import PortRules
from lora_router.discovery.pod_translation import to_pods
from lora_router.extproc import process_call
from lora_router.extproc.body import read_body
from lora_router.extproc.event_reader import read_event
from lora_router.extproc.outputs import Output
from lora_router.extproc.session import Session
from lora_router.routing.registry import installed
from lora_router.scrape.exposition import read_page

SIZES = (1_000, 10_000, 220_000, 2_000_000)
PODS = (8, 100, 1_000)
_ROUNDS = 5
_ADDED = 9_999
"""Number of the pod of the events. Only its base model is known."""
_FIRST = 500
"""Adapters whose first request is measured."""
_NOT_ASCII = "Der Prüfer zählte die Spalten noch einmal, 数字は合わなかった。\\n"


def measure(rounds: int, sizes: Sequence[int], pods: Sequence[int]) -> dict[str, float]:
    """Measure all parts; return µs by name."""
    rows = {f"body, {_size(size)}": microseconds(_reading(size), rounds) for size in sizes}
    rows["body, 220 KB, not ASCII"] = microseconds(_reading(220_000, _NOT_ASCII), rounds)
    rows |= {name: microseconds(call, rounds) for name, call in prompts.parts(sizes).items()}
    few = BenchFleet(8)
    for size in sizes:
        rows[f"conversation, {_size(size)}"] = microseconds(_conversation(few, size), rounds)
    rows |= _request_in_pieces(few, rounds)
    rows |= {name: microseconds(call, rounds) for name, call in observed.records().items()}
    for count in pods:
        fleet = few if count == 8 else BenchFleet(count)
        for name in (*sorted(installed()), FewestRequests.name):
            rows[f"decision, {name}, {count} pods"] = microseconds(fleet.pick(name), rounds)
            rows[f"routed, {name}, {count} pods"] = microseconds(_routing(fleet, name), rounds)
        for name in fleet.prompt_readers:
            rows[f"decision, {name}, a prompt of {PROMPT_CHUNKS} chunks, {count} pods"] = (
                microseconds(fleet.pick(name, chats=True), rounds)
            )
        rows[f"first request of an adapter routed, {count} pods"] = _first_requests(fleet, rounds)
        rows[f"pod event, {count} pods"] = microseconds(_pod_event(fleet, route=False), rounds)
        rows[f"pod event and the next request routed, {count} pods"] = microseconds(
            _pod_event(fleet, route=True), rounds
        )
    pages = cycle([page.read_bytes() for page in PAGES])
    sizes_of_pages = [page.stat().st_size // 1000 for page in PAGES]
    rows[f"metrics page, {min(sizes_of_pages)}-{max(sizes_of_pages)} KB"] = microseconds(
        lambda: read_page(next(pages), engine=None, scraped_at=0.0, wall_now=2e9), rounds
    )
    return rows


def _size(size: int) -> str:
    return f"{size // 1_000_000} MB" if size >= 1_000_000 else f"{size // 1000} KB"


def _reading(size: int, prose: str | None = None) -> Callable[[], object]:
    data = body(size, adapter(0)) if prose is None else body(size, adapter(0), prose=prose)
    return lambda: read_body(data, "application/json")


def _routing(fleet: BenchFleet, algorithm: str) -> Callable[[], object]:
    return lambda: fleet.route(algorithm)


def _request_in_pieces(fleet: BenchFleet, rounds: int) -> dict[str, float]:
    """Measure the parts of a request of 1 KB; return µs by name."""
    context = context_of(fleet)
    headers, message = ext_proc_messages(1_000, adapter(0))
    endpoints = [state.pod.address for state in fleet.fleet]
    answer = answer_message(endpoints[0])
    pieces: dict[str, Callable[[], object]] = {
        "parse the headers' message": lambda: read_event(headers, context.headers),
        "parse the body's message, 1 KB": lambda: read_event(message, context.headers),
        "parse the answer's message": lambda: read_event(answer, context.headers),
        "whole request on the builtin transport, without sockets, 1 KB": requests(context, 1_000),
        "whole request with the answer's headers, 1 KB": requests(context, 1_000, endpoints),
    }
    rows = {name: microseconds(call, rounds) for name, call in pieces.items()}
    with patch.object(process_call, "Session", NoSession):
        rows["the same, with a session that decides nothing"] = microseconds(
            requests(context, 1_000), rounds
        )
    calls = requests_by_observation(DEFAULT_ALGORITHM)
    return rows | {name: microseconds(call, rounds) for name, call in calls.items()}


def _conversation(fleet: BenchFleet, size: int) -> Callable[[], object]:
    context = context_of(fleet)
    messages = ext_proc_messages(size, adapter(0))

    def nothing(_outputs: Sequence[Output]) -> None:
        return

    def whole() -> None:
        session = Session(context, nothing)
        for data in messages:
            for output in session.receive(data):
                assert isinstance(output, bytes)
        session.end()

    return whole


def _first_requests(fleet: BenchFleet, rounds: int) -> float:
    """Return CPU µs of the first request of an adapter after a pod changed."""
    change = _pod_event(fleet, route=True)
    names = fleet.never_asked[:_FIRST]
    best = float("inf")
    for _ in range(rounds):
        change()
        started = time.process_time()
        for name in names:
            fleet.route(model=name)
        best = min(best, (time.process_time() - started) / len(names))
    return best * 1e6


def _pod_event(fleet: BenchFleet, *, route: bool) -> Callable[[], object]:
    """Return a call that processes one event of the API: a pod becomes ready or not ready."""
    decoder = msgspec.json.Decoder(PodObject)
    rules = PortRules()
    events = cycle([pod_object(_ADDED, ready=ready) for ready in (True, False)])

    def take() -> None:
        pods, _ = to_pods(decoder.decode(next(events)), rules)
        assert pods
        fleet.fleet.update(pods)
        if route:
            fleet.route()

    return take


class EndsAtErrors(logging.Handler):
    """Raises what the router would log as an error, since it measures the cost of the error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Raise a ``RuntimeError`` with the text of the record."""
        cause = record.exc_info[1] if record.exc_info else None
        raise RuntimeError(f"this part failed: {record.getMessage()}") from cause


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="measure fewer sizes, in fewer rounds")
    parser.add_argument(
        "--instructions",
        nargs="*",
        choices=tuple(goals.GROUPS),
        help="instead, count the instructions of what has a goal (needs valgrind)",
    )
    arguments = parser.parse_args()
    # Requests that end at once are those of a faulty gateway, which the router would report.
    logging.getLogger("lora_router.extproc").setLevel(logging.ERROR)
    logging.getLogger("lora_router").addHandler(EndsAtErrors())
    if arguments.instructions is not None:
        if not is_counting():
            raise SystemExit(count_in_new_process("bench.parts"))
        goals.count(arguments.instructions or tuple(goals.GROUPS))
        return
    if arguments.quick:
        rows = measure(1, (1_000, 220_000), (8, 1_000))
        rows |= held.measure(held.QUICK_POINTS, 1)
    else:
        rows = measure(_ROUNDS, SIZES, PODS)
        rows |= held.measure(held.POINTS, _ROUNDS)
    if arguments.json:
        print(json.dumps({name: round(value, 2) for name, value in rows.items()}))
        return
    for name, value in rows.items():
        print(f"{name:60} {value:10.1f} µs")


if __name__ == "__main__":
    main()
