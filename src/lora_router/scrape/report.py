"""Reports what the router reads from a page: ``lora-router scrape``."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from rich.console import RenderableType

from lora_router.connection_error import reason_of
from lora_router.fleet.pod_metrics import LoraActivity, PodMetrics
from lora_router.scrape.exposition import engine_of, read_page
from lora_router.scrape.page_filter import filtered
from lora_router.scrape.page_reader import LONG_PAGE_BYTES, MAX_PAGE_BYTES
from lora_router.scrape.series import ExpositionError
from lora_router.terminal import table_or_paragraphs

_TIMEOUT_SECONDS = 10.0
_HEADINGS = ("source", "engine", "running", "waiting", "deferred", "kv cache", "slots", "active")


class SourceError(Exception):
    """A source cannot be read. The message contains the source and the cause."""


async def read_source(source: str, stdin: bytes = b"") -> dict[str, object]:
    """Read a metrics page and return what the router reads from it.

    Args:
        source: A file, ``-`` for standard input, or a URL (``/metrics`` if it has no path).
        stdin: The page that ``-`` stands for. The caller reads it, because a read of standard
            input in an event loop cannot be interrupted.

    Raises:
        SourceError: The source cannot be read, or is not the page of a known model server.
    """
    page = stdin if source == "-" else await _load(source)
    wall_now = time.time()
    try:
        if len(page) > LONG_PAGE_BYTES:
            page = filtered(page, wall_now)
        engine = engine_of(page)
        metrics = read_page(page, engine=engine, scraped_at=0.0, wall_now=wall_now)
    except ExpositionError as error:
        raise SourceError(f"{source}: {error}") from None
    return _report(source, engine, metrics)


def render_reports(reports: Sequence[dict[str, object]], width: int) -> RenderableType:
    """Return the reports as a table, or as paragraphs where the width is too small for one."""
    return table_or_paragraphs(_HEADINGS, [_row(report) for report in reports], width)


def _row(report: dict[str, object]) -> tuple[str, ...]:
    lora = report["lora"]
    usage = report["kv_cache_usage"]
    slots, active = "unknown", "unknown"
    if isinstance(lora, dict):
        slots = "unknown" if lora["max_lora"] is None else str(lora["max_lora"])
        active = ", ".join(lora["active"]) or "none"
    return (
        str(report["source"]),
        str(report["engine"]),
        *(_shown(report[key]) for key in ("running", "waiting", "deferred")),
        f"{usage:.1%}" if isinstance(usage, float) else "unknown",
        slots,
        active,
    )


async def _load(source: str) -> bytes:
    if not source.startswith(("http://", "https://")):
        try:
            return await asyncio.to_thread(Path(source).read_bytes)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise SourceError(f"{source}: cannot be read: {why}") from None
    try:
        url = source if urlsplit(source).path not in {"", "/"} else source.rstrip("/") + "/metrics"
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url) as response,
        ):
            if response.status != 200:
                raise SourceError(f"{source}: returned status {response.status}")
            page = bytearray()
            async for piece in response.content.iter_any():
                page += piece
                if len(page) > MAX_PAGE_BYTES:
                    raise SourceError(f"{source}: is longer than {MAX_PAGE_BYTES} bytes")
            return bytes(page)
    except TimeoutError:
        raise SourceError(f"{source}: timeout, no response within {_TIMEOUT_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise SourceError(f"{source}: {reason_of(error)}") from None


def _report(source: str, engine: str, metrics: PodMetrics) -> dict[str, object]:
    return {
        "source": source,
        "running": _count(metrics.running),
        "waiting": _count(metrics.waiting),
        "kv_cache_usage": metrics.kv_cache_usage,
        "deferred": _count(metrics.deferred),
        "lora": _lora(metrics.lora),
        "started_at": metrics.started_at,
        "engine": engine,
    }


def _lora(lora: LoraActivity | None) -> dict[str, object] | None:
    if lora is None:
        return None
    return {
        "max_lora": lora.max_lora,
        "active": sorted(lora.active),
        "updated_at": lora.updated_at,
    }


def _count(value: float | None) -> float | int | None:
    return int(value) if value is not None and value.is_integer() else value


def _shown(value: object) -> str:
    return "unknown" if value is None else str(value)
