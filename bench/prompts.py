"""What prompts cost an algorithm that asks for them: to read them, and to know who has them.

``python -m bench.prompts`` prints this in µs, and how many bytes it takes to tell a peer.
"""

import json
import random
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import cycle

from bench.fleets import pod
from bench.stopwatch import microseconds
from bench.workload import adapter, body
from lora_router.extproc.body import read_body
from lora_router.extproc.prompt_reading import read_prompt
from lora_router.extproc.token_lengths import TokenLengths
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodState
from lora_router.fleet.prefixes import PrefixIndex
from lora_router.fleet.prompt import Prompt
from lora_router.peering.carrier import Outgoing
from lora_router.peering.hub import Hub
from lora_router.peering.peer import Peer
from lora_router.peering.prefix_exchange import PrefixExchange
from tests.fleet import ManualClock

_PATH = "/v1/chat/completions"
_PODS = (32, 1_000)
_CHUNKS = 430
"""Chunks of 220 KB, if all had 512 bytes."""
_COMMON = 150
"""Chunks that all of these prompts begin with."""
_CHUNK_TOKENS = 128
_PROMPTS = 500
_REQUESTS_A_SECOND = 100
_TURN = "The columns were counted once more, and {one, two} of them agreed. " * 7


def parts(sizes: Sequence[int]) -> dict[str, Callable[[], object]]:
    """Return calls that read prompts of some sizes, and that ask and tell the index."""
    kb = {f"{size // 1000} KB": body(size, adapter(0)) for size in sizes}
    kb["220 KB of 450 turns"] = _chat(450)
    calls: dict[str, Callable[[], object]] = {
        f"prompt, {name}": _reading(data) for name, data in kb.items()
    }
    for pods in _PODS:
        index, states = _index(pods)
        asked = cycle(_prompts(_PROMPTS))
        calls[f"prefixes of {_CHUNKS} chunks asked, {pods} pods"] = _asking(index, asked)
        sent = cycle(_prompts(_PROMPTS))
        calls[f"prefixes of {_CHUNKS} chunks sent and ended, {pods} pods"] = _sending(
            index, states, sent
        )
    index, states = _index(32)
    short = cycle(_prompts(20_000, 3, 1))
    calls["prefixes of 3 chunks asked, 32 pods"] = _asking(index, short)
    calls["prefixes of 3 chunks sent and ended, 32 pods"] = _sending(index, states, short)
    return calls


def told_bytes() -> dict[str, float]:
    """Return how many bytes a peer is sent for a prompt, on average."""
    chats = [_Turns(number) for number in range(50)]
    turns = [chat.prompt(turn) for turn in range(1, 11) for chat in chats]
    return {
        "a turn of a chat, 10 turns of 12 chunks": _told(turns),
        "a prompt of 430 chunks of which 150 are known": _told(_prompts(_PROMPTS)),
        "a new prompt of 3 chunks": _told(_prompts(_PROMPTS, 3, 0)),
    }


class _Turns:
    """A chat that grows by 12 chunks a turn."""

    def __init__(self, number: int) -> None:
        rng = random.Random(number)
        self._chunks = [rng.getrandbits(64) for _ in range(120)]

    def prompt(self, turn: int) -> Prompt:
        chunks = self._chunks[: 12 * turn]
        ends = [float(_CHUNK_TOKENS * (number + 1)) for number in range(len(chunks))]
        return Prompt(ends[-1], chunks, ends)


def _told(prompts: Sequence[Prompt]) -> float:
    """Return the bytes of the messages with some prompts, by the number of these."""
    clock, carrier = ManualClock(), _Carrier()
    fleet = Fleet()
    fleet.replace(pod(number, (adapter(0),)) for number in range(8))
    hub = Hub("bench", fleet, dict, clock)
    hub.peers["peer"] = Peer("peer", "", 0.0, 0.0)
    hub.add(carrier)
    PrefixExchange(hub, fleet)
    states = list(fleet)
    for prompt in prompts:
        chat = prompt.chunks[0]
        fleet.prefixes.sent(states[chat % 8], adapter(chat % 10), prompt)
        clock.advance(1 / _REQUESTS_A_SECOND)
    clock.advance(10)
    return carrier.bytes / len(prompts)


class _Carrier:
    """Counts what is sent to one peer beside reports."""

    announces = False

    def __init__(self) -> None:
        self.bytes = 0

    def send(self, _report: Outgoing, _now: float) -> None: ...

    def send_to_all(self, message: bytes) -> None:
        self.bytes += len(message)

    def send_to(self, _peer: str, _message: bytes) -> bool:
        return False

    def forget(self, _peer: str, _why: str) -> None: ...

    def leave(self, _message: bytes) -> None: ...


def chunk_counts(sizes: Sequence[int]) -> dict[str, int]:
    """Return how many chunks prompts of some sizes have."""
    bodies = {f"{size // 1000} KB": body(size, adapter(0)) for size in sizes}
    bodies["220 KB of 450 turns"] = _chat(450)
    return {name: len(_read(data).chunks) for name, data in bodies.items()}


def chunk_bytes() -> float:
    """Return how much memory a chunk takes that one pod has."""
    tracemalloc.start()
    index, states = PrefixIndex(room=1e9), [PodState(pod(number, None)) for number in range(100)]
    before = tracemalloc.get_traced_memory()[0]
    rng = random.Random(1)
    for number in range(2_000):
        names = [rng.getrandbits(64) for _ in range(100)]
        index.sent(states[number % 100], adapter(0), Prompt(1e4, names, list(range(1, 101))))
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return taken / index.count


def _read(data: bytes) -> Prompt:
    fields = read_body(data, "application/json").document
    prompt = read_prompt(fields, _PATH, adapter(0), TokenLengths())
    if prompt is None:
        raise RuntimeError("a body has no prompt")
    return prompt


def _chat(turns: int) -> bytes:
    messages = [{"role": "user", "content": _TURN} for _ in range(turns)]
    return json.dumps({"model": adapter(0), "messages": messages}).encode()


def _reading(data: bytes) -> Callable[[], object]:
    fields, lengths = read_body(data, "application/json").document, TokenLengths()
    return lambda: read_prompt(fields, _PATH, adapter(0), lengths)


def _prompts(count: int, chunks: int = _CHUNKS, common: int = _COMMON) -> list[Prompt]:
    rng = random.Random(1)
    beginning = [rng.getrandbits(64) for _ in range(common)]
    ends = [float(_CHUNK_TOKENS * (number + 1)) for number in range(chunks)]
    names = [
        beginning + [rng.getrandbits(64) for _ in range(chunks - common)] for _ in range(count)
    ]
    return [Prompt(ends[-1], each, ends) for each in names]


def _index(pods: int) -> tuple[PrefixIndex, list[PodState]]:
    """Return an index that is full, of pods that have some prompts each."""
    index, states = PrefixIndex(), [PodState(pod(number, None)) for number in range(pods)]
    for number, prompt in enumerate(_prompts(_PROMPTS)):
        index.sent(states[number % pods], adapter(0), prompt)
    return index, states


def _asking(index: PrefixIndex, prompts: "cycle[Prompt]") -> Callable[[], object]:
    return lambda: index.cached(adapter(0), next(prompts))


def _sending(
    index: PrefixIndex, states: Sequence[PodState], prompts: "cycle[Prompt]"
) -> Callable[[], object]:
    pods = cycle(states)

    def send() -> None:
        use = index.sent(next(pods), adapter(0), next(prompts))
        if use is not None:
            use.ended()

    return send


def main() -> None:
    """Measure and print."""
    for name, call in parts((1_000, 220_000)).items():
        print(f"{name:60} {microseconds(call, 5):10.1f} µs")
    for name, chunks in chunk_counts((1_000, 220_000)).items():
        print(f"chunks: {name:52} {chunks:10}")
    print(f"memory of a chunk: {chunk_bytes():52.1f} bytes")
    for name, count in told_bytes().items():
        print(f"told: {name:54} {count:10.1f} bytes")


if __name__ == "__main__":
    main()
