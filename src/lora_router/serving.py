"""Runs the router as a process: from the start until a signal ends it."""

import asyncio
import logging
import os
from collections.abc import Callable

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.config.sources import LoadedSettings
from lora_router.garbage import collect_less_often
from lora_router.reload import Reload
from lora_router.signals import hangups, stops
from lora_router.supervision import unless
from lora_router.workers.parent import Parent

log = logging.getLogger("lora_router")


async def serve(settings: Settings, load: Callable[[], LoadedSettings]) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Args:
        settings: The settings.
        load: Reads the settings again, for SIGHUP. It may block.

    Raises:
        ValueError, OSError, BrokenAlgorithmError: The start failed. The message has the cause.
    """
    stop = asyncio.Event()
    # The parent of workers sees no requests. Each worker traces its own.
    app = App(settings, os.environ) if settings.workers == 1 else Parent(settings)

    def stopped() -> None:
        if stop.is_set():
            log.info("received another signal, ending the drain")
            app.hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    stops.follow(lambda: loop.call_soon_threadsafe(stopped))
    loop.set_exception_handler(app.supervisor.callback_failed)
    reload = Reload(app, settings, load)
    app.supervisor.keep("reload", reload.run)
    hangups.follow(lambda: loop.call_soon_threadsafe(reload.request))
    try:
        if await unless(stop, app.start()):
            collect_less_often()
            await stop.wait()
        log.info("received a signal, draining")
    finally:
        await app.stop()
        stops.ignore()
        hangups.ignore()
