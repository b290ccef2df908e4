"""What a routed request costs, and whether that is what was wanted: ``make bench``.

``ARGS="--quick"`` takes less than a minute, ``--json FILE`` writes the numbers too, and
``--docs FILE`` the page of the documentation (``make performance``). Ends with 1 if something does
not work; a goal that is not reached is told and is no failure.
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
    """Measure, print, and write what is asked for."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer points, for a shorter time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="write the page")
    arguments = parser.parse_args()
    try:
        async with asyncio.timeout(_LONGEST_SECONDS):
            results = await measure(
                QUICK if arguments.quick else FULL, parts=["--quick"] if arguments.quick else []
            )
    except (ChildError, RuntimeError, OSError) as error:
        sys.exit(f"bench: {error}" if str(error) else "bench: it took too long")
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
