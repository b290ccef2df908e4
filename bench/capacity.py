"""Measure what the best policy carries in a scenario: ``python -m bench.capacity SCENARIO...``.

The ``capacity`` of a scenario is the highest rate that any of the policies carries. A rate is
carried if 95 % of the requests are good (``--limit good``), or if the p99 of the time to first
token is at most 5 s (``--limit p99``). With ``--write`` the file gets the new ``capacity``.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench.highest_rate import LIMITS, highest_rate
from bench.routing_evidence import CAPABLE
from bench.routing_settings import Setting, setting_of
from lora_router.simulator.algorithms import check_known

_CAPACITY = re.compile(r"^capacity:.*\n", re.MULTILINE)


def main() -> None:
    """Measure, print, and write if wanted."""
    arguments = _parser().parse_args()
    policies = [name for name in arguments.policies.split(",") if name]
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    try:
        check_known(policies)
        traces = dict(_assigned(text) for text in arguments.trace)
        names = dict.fromkeys([*arguments.scenarios, *traces])
        settings = [
            setting_of(name, trace=traces.get(name), aside=False, seconds=arguments.duration)
            for name in names
        ]
    except (LookupError, ValueError, OSError) as error:
        sys.exit(f"bench.capacity: {error}")
    print(f"Requests per second ({LIMITS[arguments.limit].about})\n")
    print(f"| scenario | {' | '.join(f'`{name}`' for name in policies)} |")
    print("| --- |" + " ---: |" * len(policies))
    with ProcessPoolExecutor(arguments.processes) as workers:
        for setting in settings:
            found = _rates(workers, setting, policies, seeds, arguments.limit)
            print(f"| `{setting.scenario.name}` | {_cells(found)} |", flush=True)
            if arguments.write:
                _write(Path(setting.scenario.file), max(found.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", help="names of scenarios, or YAML files")
    parser.add_argument(
        "--trace",
        action="append",
        default=[],
        metavar="SCENARIO=FILE",
        help="a scenario with a file of recorded requests; can be repeated",
    )
    parser.add_argument("--limit", choices=sorted(LIMITS), default="good")
    parser.add_argument("--policies", default=",".join(CAPABLE), metavar="NAME,...")
    parser.add_argument("--seeds", default="1,2,3", metavar="N,...")
    parser.add_argument(
        "--duration", type=float, metavar="SECONDS", help="length of a trace, or part of a file"
    )
    parser.add_argument("--processes", type=int, default=2, metavar="N")
    parser.add_argument("--write", action="store_true", help="put the capacity into the file")
    return parser


def _assigned(text: str) -> tuple[str, Path]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise ValueError(f"--trace {text}: must be SCENARIO=FILE")
    return name, Path(value)


def _rates(
    workers: ProcessPoolExecutor,
    setting: Setting,
    policies: Sequence[str],
    seeds: Sequence[int],
    limit: str,
) -> Mapping[str, float]:
    futures = {
        name: workers.submit(highest_rate, setting.played(), name, seeds, limit, setting.traffic)
        for name in policies
    }
    return {name: future.result() for name, future in futures.items()}


def _cells(found: Mapping[str, float]) -> str:
    best = f"{max(found.values()):.2f}"
    shown: Iterable[str] = (f"{rate:.2f}" for rate in found.values())
    return " | ".join(f"**{text}**" if text == best else text for text in shown)


def _write(path: Path, capacity: float) -> None:
    line = f"capacity: {capacity:.3g}\n"
    text = path.read_text()
    found, count = _CAPACITY.subn(line, text, count=1)
    path.write_text(found if count else f"{text.rstrip()}\n{line}")


if __name__ == "__main__":
    main()
