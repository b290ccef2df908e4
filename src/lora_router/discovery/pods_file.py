"""Discovery of pods through a YAML file, which is reloaded when it changes.

An invalid file aborts startup. After startup, an invalid edit (or a file that is gone) is logged
once, and the last valid list stays in use.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from lora_router.discovery.fleet_update import PODS_AT_ONCE, update_fleet
from lora_router.discovery.page_urls import PageRules
from lora_router.discovery.pods_list import PodsFileError, parse_pods
from lora_router.discovery.quiet_thread import quiet_thread
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.supervision import Supervisor, cancel, describe, every
from lora_router.threads import in_thread
from lora_router.yaml_document import YamlDocumentError, read_file

log = logging.getLogger("lora_router.discovery")

_MAX_FILE_BYTES = 16 * 1024 * 1024
_LONG_FILE_BYTES = 128 * 1024
"""A longer file takes tens of milliseconds to parse."""


@dataclass(frozen=True, slots=True)
class _Look:
    """The result of reading the file once."""

    digest: bytes
    """Digest of the content, or the error if the file has none."""
    error: str | None = None
    fault: Exception | None = None
    """The exception behind ``error``, if it is an unexpected one."""
    pods: dict[str, Pod] = field(default_factory=dict)
    """The list, by name."""
    changed: tuple[Pod, ...] = ()
    """Pods that are new or differ from the last valid list."""
    gone: tuple[str, ...] = ()
    """Names that are only in the last valid list."""


class PodsFile:
    """Applies the list of pods in a file to the fleet, and again after each change of the file."""

    def __init__(
        self,
        path: Path,
        fleet: Fleet,
        *,
        pages: PageRules | None = None,
        interval: float = 1.0,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it. The file is not read yet.

        Args:
            path: The file, or a symbolic link to it. A link that is replaced (a mounted ConfigMap)
                is followed.
            fleet: Receives the pods.
            pages: Where the pages of pods are that do not say it.
            interval: Seconds between two reads of the file.
            supervisor: Runs the task. Default: a supervisor of its own.
            clock: Returns seconds, monotonic.
        """
        self._path = path
        self._fleet = fleet
        self._pages = pages or PageRules()
        self._interval = interval
        self._supervisor = supervisor or Supervisor()
        self._clock = clock
        self._digest = b""
        self._known: dict[str, Pod] = {}
        self._looked_at = clock()
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_error: str | None = None
        """Why the current file is not in use, or ``None`` if it is."""

    async def start(self) -> None:
        """Load the list and start to watch the file.

        Raises:
            PodsFileError: The file cannot be read or is invalid.
        """
        await self._look()
        if self.last_error is not None:
            raise PodsFileError(self.last_error)
        self._task = self._supervisor.keep("pods-file", self._watch, about=str(self._path))

    async def synced(self) -> None:
        """Return at once: ``start`` has loaded the list."""

    def refresh(self) -> None:
        """Read the file now."""
        self._due.set()

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        status: dict[str, object] = {
            "discovery": "file",
            "pods_file_age_seconds": round(self._clock() - self._looked_at, 1),
        }
        if self.last_error is not None:
            status["discovery_error"] = self.last_error
        return status

    async def stop(self) -> None:
        """Stop watching. The fleet keeps its pods."""
        task, self._task = self._task, None
        if task is not None:
            await cancel({task})

    async def _watch(self) -> None:
        await every(self._interval, self._due, self._look)

    async def _look(self) -> None:
        """Read the file, and apply it if it changed.

        The file is read, parsed and compared in a thread, and applied in chunks: a list of 20,000
        pods takes more than a second of CPU, during which requests must be served.
        """
        last, before = self._digest, self._known
        found = await in_thread(
            lambda: _look_at(self._path, self._pages, last, before), "pods-file"
        )
        self._looked_at = self._clock()
        if found.digest == self._digest:
            return
        if found.error is not None:
            self._refused(found)
            return
        await update_fleet(self._fleet, found.changed, found.gone)
        self._fleet.synced = True
        # Store it only now: if the update failed, the next run of the task repeats it.
        self._digest = found.digest
        self._known = found.pods
        self.last_error = None
        log.info("loaded %d pods from %s", len(found.pods), self._path)
        del found
        await _free(before)

    def _refused(self, found: _Look) -> None:
        if found.fault is not None:
            self._supervisor.failed("pods-file", found.fault, about=str(self._path))
        self._digest = found.digest
        self.last_error = f"{self._path}: {found.error}"
        if self._fleet.synced:
            log.error(
                "%s; the last valid list of %d pods stays in use", self.last_error, len(self._fleet)
            )


async def _free(pods: dict[str, Pod]) -> None:
    """Free a list of pods in chunks, for the same reason as it is applied in chunks."""
    while pods:
        for _ in range(min(PODS_AT_ONCE, len(pods))):
            pods.popitem()
        await asyncio.sleep(0)


def _look_at(path: Path, pages: PageRules, last: bytes, known: Mapping[str, Pod]) -> _Look:
    """Read the whole file, since its size and time stamp can stay the same across an edit."""
    try:
        content = read_file(path, max_bytes=_MAX_FILE_BYTES)
    except YamlDocumentError as error:
        return _Look(b"unreadable: " + str(error).encode(), str(error))
    digest = hashlib.blake2b(content).digest()
    if digest == last:
        return _Look(digest)
    with quiet_thread() if len(content) > _LONG_FILE_BYTES else nullcontext():
        try:
            pods = parse_pods(content, pages)
        except PodsFileError as error:
            return _Look(digest, str(error))
        except Exception as error:
            # An unexpected fault, caused by this content: another content may be fine.
            return _Look(digest, f"cannot be read: {describe(error)}", fault=error)
        by_name = {pod.name: pod for pod in pods}
        return _Look(
            digest,
            pods=by_name,
            changed=tuple([pod for pod in pods if known.get(pod.name) != pod]),
            gone=tuple(known.keys() - by_name.keys()),
        )
