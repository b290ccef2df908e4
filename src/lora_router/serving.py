"""Runs the router as a process: from the start until a signal ends it."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable

from lora_router.app import App
from lora_router.config.settings import Settings
from lora_router.config.sources import LoadedSettings
from lora_router.reload import Reload
from lora_router.signals import hangups
from lora_router.supervision import unless

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
    app = App(settings)

    def stopped() -> None:
        if stop.is_set():
            log.info("received another signal, ending the drain")
            app.hurry()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped)
    loop.set_exception_handler(app.supervisor.callback_failed)
    reload = Reload(app, settings, load)
    app.supervisor.keep("reload", reload.run)
    hangups.follow(lambda: loop.call_soon_threadsafe(reload.request))
    try:
        if await unless(stop, app.start()):
            _collect_less_often()
            await stop.wait()
        log.info("received a signal, draining")
    finally:
        await app.stop()
        hangups.ignore()


def _collect_less_often() -> None:
    """Exclude the objects of the startup from garbage collection, and collect less often.

    A request leaves no reference cycles, but allocates enough objects to trigger many collections
    a second. Collections of the oldest generation would visit all pods and models each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
