"""Child processes that never outlive the demo, however it ends.

Each child is in a session of its own, so that Ctrl-C reaches only the demo, which then ends them
in order. If the demo is killed, the kernel ends them on Linux (``PR_SET_PDEATHSIG``); pods also end
when their standard input does, on any system.
"""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_PR_SET_PDEATHSIG = 1
_GRACE_SECONDS = 5.0


class ChildError(RuntimeError):
    """A child ended before it should; the message says which and shows its last lines."""


class Children:
    """The demo's child processes, ended in reverse order of their start."""

    def __init__(self, directory: Path) -> None:
        """Prepare; the children's output goes into files in ``directory``."""
        self._directory = directory
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Nobody can interrupt this: what is left would stay behind.
        await asyncio.shield(asyncio.create_task(self._end_all()))

    async def start(self, name: str, command: Sequence[str | Path]) -> None:
        """Start a child.

        Raises:
            ChildError: The program cannot be started.
        """
        parent = os.getpid()
        try:
            with self.output(name).open("wb") as output:
                self._running[name] = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=lambda: _end_with(parent),
                )
        except OSError as error:
            raise ChildError(f"{name} cannot be started: {error}") from None

    def output(self, name: str) -> Path:
        """Return the file with a child's output."""
        return self._directory / f"{name}.log"

    def last_lines(self, name: str) -> str:
        """Return the end of a child's output, indented."""
        lines = self.output(name).read_text(errors="replace").splitlines()[-10:]
        return "\n".join(f"  {line}" for line in lines) or "  (it printed nothing)"

    def check(self) -> None:
        """See that all children run.

        Raises:
            ChildError: One has ended.
        """
        for name, process in self._running.items():
            if process.returncode is not None:
                raise ChildError(
                    f"{name} ended with status {process.returncode}; its last lines:\n"
                    f"{self.last_lines(name)}"
                )

    async def watch(self) -> None:
        """Return never, unless a child ends.

        Raises:
            ChildError: One has ended.
        """
        while True:
            self.check()
            await asyncio.sleep(0.1)

    async def _end_all(self) -> None:
        processes = list(reversed(self._running.values()))
        for process in processes:
            if process.returncode is None:
                process.terminate()
        for process in processes:
            try:
                async with asyncio.timeout(_GRACE_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def _end_with(parent: int) -> None:
    """Ask the kernel to end this process with its parent. Runs in the child, before the program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # The parent ended in between.
            os._exit(1)
