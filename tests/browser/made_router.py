"""Debug pages that a test makes up: as many pods as it likes, and what happens to them."""

import json
from collections.abc import Mapping
from time import time
from typing import Any

from lora_router.admin.server import AdminServer, Readiness
from lora_router.admin.shown import Shown
from lora_router.telemetry.exposition import Page

Row = dict[str, Any]


def pod(
    number: int, *, slots: int | None = 4, running: int = 2, loaded: int = 1, **fields: Any
) -> Row:
    places = ["running"] * running + ["slot"] * loaded
    return {
        "name": f"pods/vllm-{number:04}",
        "address": f"10.0.{number // 250}.{number % 250 + 1}:8000",
        "state": "ready",
        "health": "healthy",
        "why": "",
        "base_models": ["llama"],
        "engine": "vllm",
        "slots": slots,
        "free_slots": None if slots is None else slots - running,
        "adapters": [
            {
                "name": f"adapter-{(number * 3 + at) % 500}",
                "place": place,
                "in_flight": 3 if place == "running" else 0,
                "closed": False,
            }
            for at, place in enumerate(places)
        ],
        "adapters_more": 0,
        "in_flight": 3 * running,
        "others_requests": 0,
        "waiting": 0.0,
        "cache_use": 0.25,
        "age_seconds": 0.2,
        **fields,
    }


def held(request_id: str, model: str, seconds: float, **fields: Any) -> Row:
    return {
        "request_id": request_id,
        "router": "router-a",
        "model": model,
        "adapter": model,
        "algorithm": "lora-placement",
        "reason": "no pod has a free slot",
        "seconds": seconds,
        "wanted": None,
        "closing": None,
        **fields,
    }


def decision(number: int, model: str = "adapter-1", **fields: Any) -> Row:
    return {
        "number": number,
        "router": "router-a",
        "at": 1_800_000_000.0 + number,
        "request_id": f"request-{number}",
        "path": "/v1/chat/completions",
        "model": model,
        "adapter": model,
        "base_model": "llama",
        "size": 300,
        "stream": True,
        "algorithm": "lora-placement",
        "outcome": "routed",
        "reason": "runs the adapter",
        "pod": "pods/vllm-0001",
        "endpoint": "10.0.0.2:8000",
        "held_seconds": 0.0,
        "held_for": "",
        "decision_seconds": 0.00002,
        "first_byte_seconds": 0.12,
        "seconds": 1.5,
        "status": 200,
        "details": "",
        "retried_on": "",
        "place": "running",
        "spilled": False,
        "replicated": False,
        "prompt_tokens": None,
        "completion_tokens": None,
        "abnormal": False,
        "slow": False,
        **fields,
    }


def adapter(name: str, requests: int, **fields: Any) -> Row:
    return {
        "name": name,
        "base_model": "llama",
        "declared_by": "",
        "state": "",
        "source": "",
        "wanted": 0,
        "loading": [],
        "failing": [],
        "running": ["pods/vllm-0001"],
        "loaded": [],
        "listed": 3,
        "listed_on": ["pods/vllm-0001", "pods/vllm-0002", "pods/vllm-0003"],
        "held": 0,
        "in_flight": 2,
        "requests": requests,
        "hits": requests * 9 // 10,
        "misses": requests - requests * 9 // 10,
        "failed": 0,
        "p50_seconds": 0.1,
        "p99_seconds": 0.9,
        "hold_p99_seconds": None,
        **fields,
    }


def router(name: str = "router-a", **fields: Any) -> Row:
    return {
        "name": name,
        "version": "1.0.0",
        "algorithm": "lora-placement",
        "ready": True,
        "reason": "ready",
        "pods": 3,
        "held": 0,
        "in_flight": 6,
        "decisions": 100,
        "loop_lag_seconds": 0.001,
        "uptime_seconds": 60.0,
        "peers": [],
        **fields,
    }


class MadeRouter:
    """Rows that a test sets, as the pages under ``/debug`` show them."""

    def __init__(self, pods: int = 3) -> None:
        self.pods = [pod(number) for number in range(pods)]
        self.held: list[Row] = []
        self.decisions: list[Row] = [decision(1)]
        self.adapters = [adapter("adapter-1", 1000)]
        self.routers = [router()]
        self.unreachable: list[str] = []
        self.answers: dict[str, Row] = {}
        """Further pages, by their name."""
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def show(self, name: str, query: Mapping[str, str]) -> Shown:
        self.asked.append((name, dict(query)))
        if name in self.answers:
            return Shown(json.dumps(self.answers[name]).encode())
        if name == "decision":
            (row,) = (each for each in self.decisions if each["request_id"] == query["id"])
            explained = {**row, "text": "", "candidates": [], "held_candidates": []}
            return Shown(json.dumps(explained).encode())
        rows: list[Row] | None = getattr(self, name, None)
        if rows is None:
            return Shown(b'{"error": "there is no such page"}', 404)
        for field in ("model", "pod"):
            rows = [row for row in rows if query.get(field) in (None, row.get(field))]
        if query.get("abnormal") == "true":
            rows = [row for row in rows if row["abnormal"]]
        rows = rows[: int(query.get("limit", len(rows)))]
        page = {"at": time(), "unreachable": self.unreachable, name: rows, "more": 0}
        return Shown(json.dumps(page).encode())

    def admin(self, **arguments: Any) -> AdminServer:
        """Return an admin server that shows it."""

        async def metrics(_accept: str) -> Page:
            return Page(b"", "text/plain")

        return AdminServer(
            metrics,
            lambda: Readiness(ready=True, reason="ready", details={}),
            lambda: 0.0,
            **{"host": "127.0.0.1", "port": 0, "show": self.show, **arguments},
        )
