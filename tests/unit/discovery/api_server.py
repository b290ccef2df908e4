"""An API server with a few resources, for tests of discovery. tests/kube uses a real one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

POOLS = "/apis/inference.networking.k8s.io/v1/namespaces/ml/inferencepools"
OBJECTIVES = "/apis/inference.networking.x-k8s.io/v1alpha2/namespaces/ml/inferenceobjectives"
PODS = "/api/v1/namespaces/ml/pods"

Document = dict[str, object]


def inference_pool(*ports: int, app: str = "vllm", **spec: object) -> Document:
    return {
        "metadata": {"name": "pool", "namespace": "ml", "uid": "p"},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "targetPorts": [{"number": port} for port in ports],
            **spec,
        },
    }


def ready_pod(name: str, ip: str, app: str = "vllm") -> Document:
    return {
        "metadata": {"name": name, "namespace": "ml", "uid": name, "labels": {"app": app}},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def inference_objective(
    name: str, priority: int | None, pool: str = "pool", **spec: object
) -> Document:
    return {
        "metadata": {"name": name},
        "spec": {"priority": priority, "poolRef": {"name": pool}, **spec},
    }


class ApiServer:
    """Lists what it has, and announces each change to all watches of a path."""

    def __init__(self) -> None:
        self.items: dict[str, list[Document]] = {}
        self.refused: dict[str, int] = {}
        """Paths that are answered with a status."""
        self.queries: dict[str, list[dict[str, str]]] = {}
        self._changed = asyncio.Condition()
        self._versions: dict[str, int] = {}

    async def put(self, path: str, *items: Document) -> None:
        """Replace all resources of a path."""
        self.items[path] = list(items)
        async with self._changed:
            self._versions[path] = self._versions.get(path, 1) + 1
            self._changed.notify_all()

    @asynccontextmanager
    async def run(self, folder: Path) -> AsyncIterator[Path]:
        """Serve, and yield a kubeconfig."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        document = {
            "current-context": "c",
            "clusters": [
                {"name": "c", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
            ],
            "users": [{"name": "c", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        }
        config = folder / "kubeconfig"
        config.write_text(json.dumps(document))
        try:
            yield config
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, query = request.path, dict(request.query)
        self.queries.setdefault(path, []).append(query)
        if path in self.refused:
            return web.json_response({"message": "no"}, status=self.refused[path])
        if path not in self.items:
            return web.json_response({"message": "no such resource"}, status=404)
        version = self._versions.get(path, 1)
        if "watch" not in query:
            return web.json_response(
                {
                    "metadata": {"resourceVersion": str(version)},
                    "items": self._selected(path, query),
                }
            )
        response = web.StreamResponse()
        await response.prepare(request)
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._versions.get(path, 1) > int(query["resourceVersion"])
            )
        event: Document = {"type": "MODIFIED", "object": {}}
        if path == PODS:
            # Their follower lists again only if the version is too old.
            event = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
        await response.write(json.dumps(event).encode() + b"\n")
        return response

    def _selected(self, path: str, query: dict[str, str]) -> list[Document]:
        selector = query.get("labelSelector")
        if selector is None:
            return self.items[path]
        key, _, value = selector.partition("=")
        found = []
        for item in self.items[path]:
            metadata = item["metadata"]
            assert isinstance(metadata, dict)
            if metadata.get("labels", {}).get(key) == value:
                found.append(item)
        return found
