"""Child processes that never outlive the demo, however it ends.

Each child runs in a session of its own, so that Ctrl-C reaches only the demo, which then stops the
children in order. If the demo is killed, the kernel stops them on Linux (``PR_SET_PDEATHSIG``). On
any system, pods also exit when their standard input is closed.
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
    """A child exited too early. The message names the child and shows its last lines of output."""


class Children:
    """The demo's child processes, stopped in reverse order of their start."""

    def __init__(self, directory: Path) -> None:
        """Write each child's output into a file in ``directory``."""
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
        # Shielded, because a child that is not stopped here stays behind.
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

    async def kill(self, name: str) -> None:
        """End a child with SIGKILL. From now on it does not count as one that exited too early."""
        process = self._running.pop(name)
        process.kill()
        await process.wait()

    def output(self, name: str) -> Path:
        """Return the file with a child's output."""
        return self._directory / f"{name}.log"

    def last_lines(self, name: str) -> str:
        """Return the end of a child's output, indented."""
        lines = self.output(name).read_text(errors="replace").splitlines()[-10:]
        return "\n".join(f"  {line}" for line in lines) or "  (it printed nothing)"

    def check(self) -> None:
        """Check that all children run.

        Raises:
            ChildError: A child has exited.
        """
        for name, process in self._running.items():
            if process.returncode is not None:
                raise ChildError(
                    f"{name} {_how(process.returncode)}; its last lines:\n{self.last_lines(name)}"
                )

    async def watch(self) -> None:
        """Wait until a child exits.

        Raises:
            ChildError: A child has exited.
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


def _how(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    return f"was killed by {signal.Signals(-status).name}"


def _end_with(parent: int) -> None:
    """Have the kernel stop this process with its parent. Runs in the child before the program."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # The parent exited before prctl.
            os._exit(1)
