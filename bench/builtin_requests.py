"""Requests on the builtin transport without its sockets: it gets the bytes that Envoy would send.

What the router's process costs behind Envoy beyond this is the part of the kernel and of the event
loop.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import cycle

from bench.ext_proc_client import header_block
from bench.fleets import BenchFleet, MonotonicClock, TickingClock
from bench.workload import adapter, answer_message, ext_proc_messages
from lora_router.extproc.context import SessionContext
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.models_answer import ModelsAnswers
from lora_router.extproc.paths import Paths
from lora_router.extproc.process_call import Process
from lora_router.extproc.sticky_ids import StickyIds
from lora_router.extproc.transport import PROCESS_PATH
from lora_router.grpc_server import frames
from lora_router.grpc_server.bounds import Bounds
from lora_router.grpc_server.connection import Connection
from lora_router.grpc_server.grpc_messages import prefix
from lora_router.grpc_server.limits import Limits, ProcessLimits
from lora_router.grpc_server.methods import Methods
from lora_router.grpc_server.turns import Turns
from lora_router.telemetry.decisions import DecisionLog
from lora_router.telemetry.traffic import Traffic

MESSAGES = 1000
"""Requests that are prepared, each for another adapter: as many as in the load generator."""
_OPEN = 32
"""Requests in flight at any time."""
_HEADERS = header_block()
_WIDE = 2**30
_PORT = b":8000"
"""How the endpoint of each pod ends."""


def requests(
    context: SessionContext, size: int, endpoints: Sequence[str] = ()
) -> Callable[[], object]:
    """Return a call that processes one request up to its answer, and ends an older request.

    Args:
        context: The context of the sessions.
        size: Length of the body in bytes.
        endpoints: The endpoints of all pods, of the same length, if Envoy sends the headers of the
            answers too. Empty: it does not.
    """
    answered = {endpoint.encode(): _in_grpc(answer_message(endpoint)) for endpoint in endpoints}
    length = max(map(len, endpoints), default=0)
    process = Process(context, max_message_bytes=1 << 25)
    methods = Methods({PROCESS_PATH: process.open_call}, max_header_list_bytes=1 << 16)
    limits = Limits()
    connection = Connection(
        methods.open_call,
        lambda: 0.0,
        limits=limits,
        bounds=Bounds(ProcessLimits(), small=limits.stream_window, call_later=_never),
        call_later=_never,
        wake=lambda: None,
        turns=Turns(lambda _give: None, lambda: 0.0),
    )
    greeting = frames.settings({frames.INITIAL_WINDOW_SIZE: _WIDE}) + frames.window_update(0, _WIDE)
    connection.receive(frames.PREFACE + greeting)
    asked = cycle(
        [
            tuple(_in_grpc(data) for data in ext_proc_messages(size, adapter(each)))
            for each in range(MESSAGES)
        ]
    )
    under_way: deque[int] = deque()
    number = -1

    def one() -> None:
        nonlocal number
        number += 2
        headers, body = next(asked)
        start = frames.frame(frames.HEADERS, frames.END_HEADERS, number, _HEADERS)
        connection.receive(start + frames.frame(frames.DATA, 0, number, headers))
        connection.output()
        connection.receive(frames.frame(frames.DATA, 0, number, body))
        output = connection.output()
        if answered:
            after = output.find(_PORT) + len(_PORT)
            message = answered[bytes(output[after - length : after])]
            connection.receive(frames.frame(frames.DATA, 0, number, message))
            connection.output()
        under_way.append(number)
        if len(under_way) > _OPEN:
            # As Envoy does: half-close the stream, then reset it.
            old = under_way.popleft()
            end = frames.frame(frames.DATA, frames.END_STREAM, old)
            connection.receive(end + frames.rst_stream(old, 0))
            connection.output()
            if old % 8001 == 0:
                connection.receive(frames.window_update(0, _WIDE >> 8))

    return one


def context_of(fleet: BenchFleet) -> SessionContext:
    """Return the context of sessions that route to a fleet, and observe nothing."""
    return SessionContext(
        fleet.director,
        fleet.telemetry.counts,
        Paths(),
        HeaderNames(),
        1 << 25,
        ModelsAnswers(fleet.director, MonotonicClock()),
        StickyIds(fleet.fleet, fleet.director.sticky.made, MonotonicClock()),
    )


def requests_by_observation(algorithm: str) -> dict[str, Callable[[], object]]:
    """Return calls that process a request of 1 KB and its answer, by what is observed of it.

    The first one observes nothing, the second one records its decision. The last one also counts it
    by base model, pod and adapter, and tells its client of it. None is traced, and none reads the
    tokens that answers state.
    """
    calls = {}
    whole = f"whole request with the answer's headers, 1 KB, {algorithm}"
    for what in ("", ", recorded", ", recorded, counted, and told"):
        fleet = BenchFleet(8, algorithm=algorithm, clock=TickingClock(), takes_notes=bool(what))
        context = context_of(fleet)
        if what:
            log = DecisionLog(10_000, rng=random.Random(1))
            fleet.director.observe()
            context = replace(context, decisions=log)
        if what.endswith("told"):
            Traffic(log, 100, fleet.fleet)
            context = replace(context, tells_decisions=True)
        endpoints = [state.pod.address for state in fleet.fleet]
        calls[whole + what] = requests(context, 1_000, endpoints)
    return calls


def _in_grpc(data: bytes) -> bytes:
    return prefix.pack(0, len(data)) + data


def _never(_seconds: float, _call: Callable[[], None]) -> Callable[[], object]:
    raise RuntimeError("a stream has a deadline")
