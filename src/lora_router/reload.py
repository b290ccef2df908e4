"""Applies changed settings to a running router, on SIGHUP.

The sources of the settings are read as at the start. Invalid settings change nothing and are logged
with the error that a start would print. Of changed settings, those of the log are applied. The
others need a restart, which one log line says. The files that the settings name are read again.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal, Protocol

from lora_router.config.settings import Settings
from lora_router.config.sources import LoadedSettings, SettingsError
from lora_router.threads import in_thread

log = logging.getLogger("lora_router")

_APPLIED = ("log_level", "log_format")
_SHOWN_ERRORS = 20


class Reloadable(Protocol):
    """A router that runs."""

    def refresh(self) -> None:
        """Read the files again that the router follows."""

    def use_log(self, level: str, style: Literal["text", "json"]) -> None:
        """Use other settings of the log."""


class Reload:
    """Reloads a router whenever it is asked to."""

    def __init__(self, app: Reloadable, used: Settings, load: Callable[[], LoadedSettings]) -> None:
        """Create it.

        Args:
            app: The router.
            used: The settings with which it was started.
            load: Reads the settings again. It may block.
        """
        self._app = app
        self._used = used
        self._load = load
        self._due = asyncio.Event()

    def request(self) -> None:
        """Reload soon. Requests during a reload cause one more."""
        self._due.set()

    async def run(self) -> None:
        """Reload for each request, for ever."""
        while True:
            await self._due.wait()
            self._due.clear()
            await self.reload()

    async def reload(self) -> None:
        """Reload now."""
        log.info("SIGHUP: reloading settings, pods file and TLS files")
        self._app.refresh()
        try:
            loaded = await in_thread(self._load, "reload")
        except SettingsError as error:
            lines = str(error).splitlines()
            for line in lines[:_SHOWN_ERRORS]:
                log.error("settings not reloaded, the old ones stay in use: %s", line)
            if len(lines) > _SHOWN_ERRORS:
                log.error("%d more errors in the settings", len(lines) - _SHOWN_ERRORS)
            return
        for warning in loaded.warnings:
            log.warning("%s", warning)
        self._apply(loaded.settings)

    def _apply(self, new: Settings) -> None:
        changed = [
            name
            for name in Settings.model_fields
            if getattr(new, name) != getattr(self._used, name)
        ]
        self._app.use_log(new.log_level, new.log_format)
        applied = [name for name in changed if name in _APPLIED]
        if applied:
            values = ", ".join(f"{name}={getattr(new, name)}" for name in applied)
            log.info("settings reloaded: %s", values)
        self._used = self._used.model_copy(update={name: getattr(new, name) for name in _APPLIED})
        needed = [name for name in changed if name not in _APPLIED]
        if needed:
            log.warning("changed settings that need a restart: %s", ", ".join(needed))
