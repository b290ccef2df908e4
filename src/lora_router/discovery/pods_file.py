"""Discovery of pods through a YAML file, which is reloaded when it changes."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lora_router.counted import counted
from lora_router.discovery.fleet_update import PODS_AT_ONCE, update_fleet
from lora_router.discovery.page_urls import PageRules
from lora_router.discovery.pods_list import PodsFileError, parse_pods
from lora_router.discovery.watched_file import WatchedFile, WatchedFileError
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.supervision import Supervisor


@dataclass(frozen=True, slots=True)
class _Found:
    """A valid list, and what it changes."""

    pods: dict[str, Pod]
    """All pods, by name."""
    changed: tuple[Pod, ...]
    """Pods that are new or differ from the last valid list."""
    gone: tuple[str, ...]
    """Names that are only in the last valid list."""


class PodsFile(WatchedFile[_Found]):
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
            path: The file, or a symbolic link to it.
            fleet: Receives the pods.
            pages: Where the pages of pods are that do not say it.
            interval: Seconds between two reads of the file.
            supervisor: Runs the task. Default: a supervisor of its own.
            clock: Returns seconds, monotonic.
        """
        self._fleet = fleet
        self._pages = pages or PageRules()
        self._known: dict[str, Pod] = {}
        super().__init__(
            path,
            "pods-file",
            self._compared,
            self._apply,
            interval=interval,
            supervisor=supervisor,
            clock=clock,
        )

    async def start(self) -> None:
        """Load the list and start to watch the file.

        Raises:
            PodsFileError: The file cannot be read or is invalid.
        """
        try:
            await super().start()
        except WatchedFileError as error:
            raise PodsFileError(str(error)) from None

    async def synced(self) -> None:
        """Return at once: ``start`` has loaded the list."""

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        status: dict[str, object] = {
            "discovery": "file",
            "pods_file_age_seconds": round(self._clock() - self.valid_at, 1),
        }
        if self.last_error is not None:
            status["discovery_error"] = self.last_error
        return status

    def _compared(self, content: bytes) -> _Found:
        """Parse the list and compare it, in a thread: both take long for many pods."""
        pods, known = parse_pods(content, self._pages), self._known
        by_name = {pod.name: pod for pod in pods}
        return _Found(
            by_name,
            tuple([pod for pod in pods if known.get(pod.name) != pod]),
            tuple(known.keys() - by_name.keys()),
        )

    async def _apply(self, found: _Found) -> str:
        """Apply the list in chunks.

        A list of 20,000 pods takes more than a second of CPU, during which requests must be served.
        """
        await update_fleet(self._fleet, found.changed, found.gone)
        self._fleet.synced = True
        # Only now: if the update failed, the next run of the task repeats it.
        before, self._known = self._known, found.pods
        await _free(before)
        return counted(len(found.pods), "pod")


async def _free(pods: dict[str, Pod]) -> None:
    """Free a list of pods in chunks, for the same reason as it is applied in chunks."""
    while pods:
        for _ in range(min(PODS_AT_ONCE, len(pods))):
            pods.popitem()
        await asyncio.sleep(0)
