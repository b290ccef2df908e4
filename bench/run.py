"""One run of the bench: measures all points of a plan, one after the other."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import router_process, wire
from bench.machine import notes, run_notes
from bench.plan import FULL, Plan
from bench.processes import run_module, transports
from bench.results import Results

_PARTS_SECONDS = 300.0


async def measure(plan: Plan, *, parts: Sequence[str] | None) -> Results:
    """Measure everything.

    Args:
        plan: What to measure, and for how long.
        parts: Arguments for ``bench.parts``. ``None``: do not run it.
    """
    began = time.monotonic()
    # The files may change meanwhile.
    about = run_notes()
    if plan != FULL:
        about["plan"] = "fewer points, each for less time"

    def note(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {what}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory(prefix="lora-router-bench-") as folder:
        directory = Path(folder)
        starts = await router_process.measure_starts(plan, directory, note)
        streams = await router_process.measure_streams(plan, directory, note)
        scraped = await router_process.measure_scraping(plan, directory, note)
        rows = await wire.measure(plan, directory, note)
    found: dict[str, float] = {}
    if parts is not None:
        note("the parts")
        printed = await run_module("bench.parts", "", "--json", *parts, seconds=_PARTS_SECONDS)
        found = json.loads(printed)
    return Results(
        machine=notes(),
        run=about,
        seconds=time.monotonic() - began,
        transports=transports(),
        wire=rows,
        starts=starts,
        streams=streams,
        scraped=scraped,
        parts=found,
    )
