"""The adapters of a simulated pod, and vLLM's calls that load and unload them at run time.

Statuses and texts are those of ``load_lora_adapter`` and ``unload_lora_adapter`` in vLLM's
``serving_models.py``. A load takes the engine's time (``Engine.load``). An unload removes only the
name: host memory keeps the adapter until it is evicted, and running requests continue.

Sources stand for what can go wrong: one below ``/missing/`` has no adapter, and one below
``/unfit/`` has one that the engine cannot load.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from lora_router.simulator.requests import RequestError, read_object

MISSING, UNFIT = "/missing/", "/unfit/"


class LoadedAdapters:
    """The adapters that a pod lists."""

    def __init__(
        self, base: str, names: Iterable[str], load: Callable[[str], Awaitable[None]]
    ) -> None:
        """Create it.

        Args:
            base: The name of the base model.
            names: The adapters that it has at the start.
            load: Loads an adapter into the engine.
        """
        self._base = base
        self._load = load
        self.roots: dict[str, str] = {name: f"/adapters/{name}" for name in names}
        """By name, from where each was loaded."""
        self._lock = asyncio.Lock()

    def __contains__(self, name: object) -> bool:
        return name in self.roots

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Serve the calls."""
        router.add_post("/v1/load_lora_adapter", self._load_call)
        router.add_post("/v1/unload_lora_adapter", self._unload_call)

    async def _load_call(self, request: web.Request) -> web.Response:
        document = await read_object(request)
        name, path = document.get("lora_name"), document.get("lora_path")
        if not (isinstance(name, str) and name and isinstance(path, str) and path):
            raise RequestError(
                400, "InvalidUserInput", "Both 'lora_name' and 'lora_path' must be provided."
            )
        # A second load of the same name waits for the first, and then finds it loaded.
        async with self._lock:
            replaces = document.get("load_inplace") is True
            if (name in self.roots and not replaces) or name == self._base:
                raise RequestError(
                    400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded."
                )
            if path.startswith(MISSING):
                raise RequestError(
                    404,
                    "NotFoundError",
                    f"Loading lora {name} failed: No adapter found for {path}",
                )
            if path.startswith(UNFIT):
                raise RequestError(
                    400, "BadRequestError", "LoRA rank 64 is greater than max_lora_rank 16."
                )
            await self._load(name)
            self.roots[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload_call(self, request: web.Request) -> web.Response:
        name = (await read_object(request)).get("lora_name")
        if not isinstance(name, str) or name not in self.roots:
            message = f"The lora adapter '{name}' cannot be found."
            raise RequestError(404, "NotFoundError", message, "lora_name")
        del self.roots[name]
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")
