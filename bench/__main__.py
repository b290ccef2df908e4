"""What a routed request costs, and whether the goals are met: ``make bench``.

``ARGS="--quick"`` takes less than two minutes. ``--json FILE`` also writes the numbers, and
``--docs FILE`` writes the page of the documentation (``make performance``). Exits with status 1 if
something fails. A goal that is not met is reported, but is not a failure.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench.document import document
from bench.plan import FULL, QUICK
from bench.report import goals_table, tables
from bench.results import goals
from bench.run import measure
from lora_router.demo.processes import ChildError

_LONGEST_SECONDS = 900.0


async def main() -> None:
    """Measure, print, and write the files that the arguments name."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure fewer points, for less time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write docs/performance.md")
    arguments = parser.parse_args()
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            results = await measure(
                QUICK if arguments.quick else FULL, parts=["--quick"] if arguments.quick else []
            )
    except (ChildError, RuntimeError, OSError) as error:
        # The message of a TimeoutError, which is an OSError, is empty.
        sys.exit(f"bench: {error}" if str(error) else f"bench: timeout: {_LONGEST_SECONDS:g} s")
    for table in (*tables(results), goals_table(results)):
        print(table.markdown())
    if arguments.json is not None:
        data = {**asdict(results), "goals": [asdict(goal) for goal in goals(results)]}
        arguments.json.write_text(json.dumps(data, indent=1) + "\n")
    if arguments.docs is not None:
        arguments.docs.write_text(document(results))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
