"""The adapters that a file declares, and declares anew when it changes."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from lora_router.adapters.sources import AllowedSources
from lora_router.counted import counted
from lora_router.discovery.adapters_list import AdaptersList, parse_adapters
from lora_router.discovery.watched_file import WatchedFile
from lora_router.supervision import Supervisor


class AdaptersFile(WatchedFile[AdaptersList]):
    """Watches the file, and hands on what it declares."""

    def __init__(
        self,
        path: Path,
        allowed: AllowedSources,
        declare: Callable[[AdaptersList], Awaitable[None]],
        *,
        interval: float = 0.5,
        supervisor: Supervisor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it. The file is not read yet.

        Args:
            path: The file, or a symbolic link to it.
            allowed: The sources from which pods may load.
            declare: Called with each valid content.
            interval: Seconds between two reads of the file.
            supervisor: Runs the task.
            clock: Returns seconds, monotonic.
        """
        self._declare = declare
        super().__init__(
            path,
            "adapters-file",
            partial(parse_adapters, allowed=allowed),
            self._declared,
            interval=interval,
            supervisor=supervisor,
            clock=clock,
        )

    async def _declared(self, found: AdaptersList) -> str:
        await self._declare(found)
        return f"{counted(len(found.adapters), 'adapter')} and " + counted(
            len(found.templates), "template"
        )
