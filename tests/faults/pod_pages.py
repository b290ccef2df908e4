"""The pages of a pod of the fault tests: as vLLM writes them, and as nobody should."""

import itertools
import json
from collections.abc import Iterator, Sequence
from functools import cache

from tests.faults.behaviour import Page

_HUGE_BYTES = 8 * 1024 * 1024
_pages_served = itertools.count()


def metrics_page(
    kind: Page, running: int, adapters: Sequence[str], slots: int, now: float
) -> bytes:
    """Return ``/metrics``."""
    if kind == "empty":
        return b""
    if kind == "huge":
        return _many_series()
    names = ",".join(adapters)
    places = "9" * 4000 if kind == "digits" else str(slots)
    labels = f'max_lora="{places}",running_lora_adapters="{names}",waiting_lora_adapters=""'
    return (
        f'vllm:num_requests_running{{engine="0",model_name="base"}} {running}.0\n'
        f'vllm:num_requests_waiting{{engine="0",model_name="base"}} 0.0\n'
        f"vllm:lora_requests_info{{{labels}}} {now!r}\n"
    ).encode()


def models_page(kind: Page, adapters: Sequence[str]) -> bytes:
    """Return ``/v1/models``."""
    listed: list[dict[str, object]] = []
    if kind == "huge":
        listed = [{"id": f"invented-{number}", "parent": "base"} for number in range(200_000)]
    elif kind != "empty":
        listed = [{"id": "base", "parent": None}]
        listed += [{"id": name, "parent": "base"} for name in adapters]
    return json.dumps({"object": "list", "data": listed}).encode()


def endless() -> Iterator[bytes]:
    """Return pieces of a page that never ends."""
    for number in itertools.count():
        yield b"".join(
            b'vllm:num_requests_running{engine="%d",model_name="m%d"} 1.0\n' % (line, number)
            for line in range(1000)
        )


@cache
def _series() -> bytes:
    line = 'vllm:lora_requests_info{max_lora="4",running_lora_adapters="%s",x="%d"} 1.7e9\n'
    count = _HUGE_BYTES // len(line % ("y" * 60, 100_000))
    return "".join(line % ("y" * 60, number) for number in range(count)).encode()


def _many_series() -> bytes:
    """Return 8 MB of series, none of which was on the page before."""
    return _series().replace(b"y" * 60, b"%060d" % next(_pages_served))
