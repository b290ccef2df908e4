"""A file that is read again when it changes, and of which the last valid content stays in use.

An invalid file aborts startup. After startup, an invalid edit (or a file that is gone) is logged
once, and shown with the age of what is in use.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lora_router.discovery.quiet_thread import quiet_thread
from lora_router.supervision import Supervisor, cancel, describe, every
from lora_router.threads import in_thread
from lora_router.yaml_document import YamlDocumentError, read_file

log = logging.getLogger("lora_router.discovery")

MAX_FILE_BYTES = 16 * 1024 * 1024
_LONG_FILE_BYTES = 128 * 1024
"""A longer file takes tens of milliseconds to parse."""
_SETTLE_SHARE = 0.1
"""The part of the time between two looks for which a changed file must stay as it is."""
_MAX_UNSETTLED = 20
"""So often in a row a file is found being written. Then it is used all the same."""

Content = TypeVar("Content")


class WatchedFileError(ValueError):
    """The file cannot be used. The message names it, and says where it is wrong."""


@dataclass(frozen=True, slots=True)
class _Look(Generic[Content]):
    """The result of reading the file once."""

    digest: bytes
    """Digest of the content, or the error if the file has none."""
    content: Content | None = None
    """``None``: it did not change, or is invalid."""
    error: str | None = None
    fault: Exception | None = None
    """The exception behind ``error``, if it is an unexpected one."""


class WatchedFile(Generic[Content]):
    """Applies the content of a file, and again after each change."""

    def __init__(
        self,
        path: Path,
        what: str,
        parse: Callable[[bytes], Content],
        use: Callable[[Content], Awaitable[str]],
        *,
        interval: float = 1.0,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it. The file is not read yet.

        Args:
            path: The file, or a symbolic link to it. A link that is replaced (a mounted ConfigMap)
                is followed.
            what: Names the file in the names of its task and threads, and on ``/readyz``.
            parse: Returns what the file says. Runs in a thread. Raises ``ValueError`` if the
                content is invalid.
            use: Applies it, and returns how much it was, for the log.
            interval: Seconds between two reads of the file.
            supervisor: Runs the task. Default: a supervisor of its own.
            clock: Returns seconds, monotonic.
        """
        self._path = path
        self._what = what
        self._parse = parse
        self._use = use
        self._interval = interval
        self._supervisor = supervisor or Supervisor()
        self._clock = clock
        self._digest = b""
        self._in_use = ""
        self._unsettled = 0
        """How often in a row the file was found being written."""
        self.valid_at = clock()
        """When the file was last read and contained what is in use."""
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None
        """Why the current content is not in use, or ``None`` if it is."""

    async def start(self) -> None:
        """Use the content and start to watch the file.

        Raises:
            WatchedFileError: The file cannot be read or is invalid.
        """
        await self._look()
        if self.last_error is not None:
            raise WatchedFileError(self.last_error)
        self._task = self._supervisor.keep(self._what, self._watch, about=str(self._path))

    def refresh(self) -> None:
        """Read the file now."""
        self._due.set()

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        name = self._what.replace("-", "_")
        status: dict[str, object] = {
            f"{name}_age_seconds": round(self._clock() - self.valid_at, 1),
        }
        if self.last_error is not None:
            status[f"{name}_error"] = self.last_error
        return status

    async def stop(self) -> None:
        """Stop watching. What is in use stays in use."""
        task, self._task = self._task, None
        if task is not None:
            await cancel({task})

    async def _watch(self) -> None:
        await every(self._interval, self._due, self._look)

    async def _look(self) -> None:
        """Read the file, and use it if it changed. It is read and parsed in a thread."""
        last = self._digest
        found = await in_thread(lambda: _look_at(self._path, self._parse, last), self._what)
        if self._in_use and found.digest != last and await self._is_being_written(found.digest):
            return
        if found.error is not None:
            self._refused(found)
            return
        if found.content is not None:
            self._in_use = await self._use(found.content)
            # Store it only now: if the use failed, the next run of the task repeats it.
            self._digest = found.digest
            self.last_error = None
            log.info("loaded %s from %s", self._in_use, self._path)
        if self.last_error is None:
            self.valid_at = self._clock()

    async def _is_being_written(self, digest: bytes) -> bool:
        """Return whether the content changes again within a moment.

        Who writes a file line by line does not want what is missing so far to be removed.
        """
        await asyncio.sleep(_SETTLE_SHARE * self._interval)
        again = await in_thread(lambda: _look_at(self._path, _not_parsed, digest), self._what)
        if again.digest == digest or self._unsettled >= _MAX_UNSETTLED:
            self._unsettled = 0
            return False
        self._unsettled += 1
        return True

    def _refused(self, found: _Look[Content]) -> None:
        if found.fault is not None:
            self._supervisor.failed(self._what, found.fault, about=str(self._path))
        self._digest = found.digest
        self.last_error = f"{self._path}: {found.error}"
        if self._in_use:
            log.error("%s; the last valid list of %s stays in use", self.last_error, self._in_use)


def _not_parsed(_content: bytes) -> None:
    """Return nothing: only the digest is of interest."""


def _look_at(path: Path, parse: Callable[[bytes], Content], last: bytes) -> _Look[Content]:
    """Read the whole file, since its size and time stamp can stay the same across an edit."""
    try:
        content = read_file(path, max_bytes=MAX_FILE_BYTES)
    except YamlDocumentError as error:
        digest = b"unreadable: " + str(error).encode()
        return _Look(digest) if digest == last else _Look(digest, error=str(error))
    digest = hashlib.blake2b(content).digest()
    if digest == last:
        return _Look(digest)
    with quiet_thread() if len(content) > _LONG_FILE_BYTES else nullcontext():
        try:
            return _Look(digest, parse(content))
        except ValueError as error:
            return _Look(digest, error=str(error))
        except Exception as error:
            # An unexpected fault, caused by this content: another content may be fine.
            return _Look(digest, error=f"cannot be read: {describe(error)}", fault=error)
