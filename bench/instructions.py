"""What parts of the request path cost in instructions.

``make bench-parts ARGS=--instructions`` prints this for the parts that have goals (``goals``).

CPU time depends on what else the machine does and on its caches. The number of instructions hardly
depends on either, so that a change of a percent shows. The process runs under callgrind, a part of
valgrind, which counts while ``callgrind_control`` has switched it on.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from lora_router.garbage import collect_less_often

PER_MICROSECOND = 11_100
"""Instructions of the router in a µs of CPU time, on the machine of docs/performance.md."""
_INSIDE = "LORA_ROUTER_BENCH_COUNTS"
_TOTAL = re.compile(r"Th 1\s+([\d,]+)")


class Part(NamedTuple):
    """What is counted."""

    name: str
    call: Callable[[], object]
    calls: int = 500
    goal: float | None = None
    """µs that it may cost."""
    beyond: str = ""
    """The part that does the same, and less. Only the difference is told."""
    warm_up: int = 0
    """Calls before those that are counted, so that all caches are warm."""
    prepare: Callable[[], object] | None = None
    """Called before the calls that are counted."""


class Count(NamedTuple):
    """The instructions of a part, for each call."""

    part: Part
    instructions: float

    def __str__(self) -> str:
        part, sign = self.part, "+" if self.part.beyond else " "
        us = self.instructions / PER_MICROSECOND
        line = f"{part.name:72} {sign}{self.instructions:9,.0f} {sign}{us:6.1f} µs"
        if part.goal is None:
            return line
        return f"{line}, goal {part.goal:3.0f}: {'yes' if us <= part.goal else 'NO'}"


def is_counting() -> bool:
    """Return whether this process runs under callgrind."""
    return _INSIDE in os.environ


def count_in_new_process(module: str) -> int:
    """Run a module of this bench under callgrind; return its exit status."""
    command = ("valgrind", "-q", "--tool=callgrind", "--instr-atstart=no")
    output = "--callgrind-out-file=/dev/null"
    more = {_INSIDE: "1", "PYTHONHASHSEED": "0"}
    arguments = (*command, output, sys.executable, "-m", module, *sys.argv[1:])
    try:
        return subprocess.run(arguments, env={**os.environ, **more}, check=False).returncode
    except FileNotFoundError:
        sys.exit("valgrind is not installed")


class Counter:
    """Counts the instructions of this process, which runs under callgrind."""

    def __init__(self) -> None:
        self._overhead = 0
        self._found: dict[str, float] = {}
        collect_less_often()

    def of(self, part: Part) -> Count:
        """Return what a part costs."""
        self._run(part.call, part.warm_up)
        if part.prepare is not None:
            part.prepare()
        self._control("-i=on")
        self._overhead = self._overhead or self._counted(part.call, 0)
        each = (self._counted(part.call, part.calls) - self._overhead) / part.calls
        self._control("-i=off")
        self._found[part.name] = each
        return Count(part, each - self._found.get(part.beyond, 0.0))

    def _counted(self, call: Callable[[], object], calls: int) -> int:
        self._control("-z")
        self._run(call, calls)
        found = _TOTAL.search(self._control("-e"))
        if found is None:
            raise RuntimeError("callgrind does not say how many instructions there were")
        return int(found[1].replace(",", ""))

    @staticmethod
    def _run(call: Callable[[], object], calls: int) -> None:
        for _ in range(calls):
            call()

    @staticmethod
    def _control(command: str) -> str:
        arguments = ("callgrind_control", command, str(os.getpid()))
        return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
