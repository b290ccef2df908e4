"""An event loop whose time passes only while nothing can run."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Waits take no time. Whatever runs, runs in the order of its time."""

    def __init__(self) -> None:
        super().__init__(_Waits(self))
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class _Waits(selectors.DefaultSelector):
    def __init__(self, loop: "VirtualTimeLoop") -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits for ever")
        self._loop.now += max(0.0, timeout)
        return super().select(0)


def in_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    """Run a scenario."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(work)
