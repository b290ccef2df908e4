"""The highest rates that policies carry, kept in a file as ``routing_runs`` keeps runs."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from bench.code_versions import code_version
from bench.highest_rate import LIMIT_SECONDS, highest_rate
from bench.routing_settings import Setting

Rates = Mapping[str, Mapping[str, float]]
"""Requests per second by the name of the setting, and by policy."""


class RateFile:
    """The rates that were measured."""

    def __init__(
        self, path: Path, seeds: Sequence[int], version: Callable[[str], str] = code_version
    ) -> None:
        """Read the file, if there is one.

        Args:
            path: The file.
            seeds: The seeds. Rates of other seeds are ignored, and kept.
            version: Returns the code of a policy. Rates of other code are ignored, and kept.

        Raises:
            ValueError: A line is not a rate. The message names the file and the line.
        """
        self._path = path
        self._seeds = list(seeds)
        self._version = version
        self._found: dict[tuple[str, str], float] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                document = json.loads(line)
                policy = document["policy"]
                if document["seeds"] == self._seeds and document["version"] == version(policy):
                    self._found[document["content"], policy] = float(document["rate"])
            except (KeyError, TypeError, ValueError) as error:
                if number == len(lines):
                    break  # The command was interrupted there.
                raise ValueError(f"{path}:{number}: is not a rate: {error!r}") from None

    def get(self, setting: Setting, policy: str) -> float | None:
        """Return the highest rate of a policy; ``None``: it was not measured."""
        return self._found.get((setting.content, policy))

    def add(self, setting: Setting, policy: str, rate: float) -> None:
        """Add a rate, and write it to the file at once."""
        self._found[setting.content, policy] = rate
        document = {
            "version": self._version(policy),
            "seeds": self._seeds,
            "scenario": setting.name,
            "content": setting.content,
            "policy": policy,
            "rate": rate,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(document) + "\n")


def measure_rates(
    file: RateFile,
    settings: Iterable[Setting],
    policies: Sequence[str],
    seeds: Sequence[int],
    processes: int,
) -> dict[str, dict[str, float]]:
    """Return the highest rates, and measure those that the file lacks."""
    pairs = [(setting, policy) for setting in settings for policy in policies]
    missing = [pair for pair in pairs if file.get(*pair) is None]
    if missing:
        with ProcessPoolExecutor(processes) as workers:
            under_way = {
                workers.submit(
                    highest_rate, setting.played(), policy, seeds, "p99", setting.traffic
                ): (
                    setting,
                    policy,
                )
                for setting, policy in missing
            }
            for number, future in enumerate(as_completed(under_way), 1):
                setting, policy = under_way[future]
                file.add(setting, policy, future.result())
                print(
                    f"rates: {number} of {len(missing)}: {setting.name}, {policy}",
                    file=sys.stderr,
                )
    found: dict[str, dict[str, float]] = {}
    for setting, policy in pairs:
        found.setdefault(setting.name, {})[policy] = file.get(setting, policy) or 0.0
    return found


def rate_table(rates: Rates, policies: Sequence[str], ours: str) -> str:
    """Return the table of the highest rates."""
    others = [name for name in policies if name != ours]
    beside = " ratio to the best other |" if ours in policies and others else ""
    columns = len(policies) + bool(beside)
    lines = [
        f"#### Highest load with a p99 of at most {LIMIT_SECONDS:g} s, requests per second",
        "",
        f"| scenario | {' | '.join(f'`{name}`' for name in policies)} |{beside}",
        "| --- |" + " ---: |" * columns,
    ]
    for setting, found in rates.items():
        best = f"{max(found.values()):.1f}"
        shown = [f"{found[name]:.1f}" for name in policies]
        cells = [f"**{text}**" if text == best else text for text in shown]
        if beside:
            most = max(found[name] for name in others)
            cells.append(f"{found[ours] / most:.2f}" if most else "-")
        lines.append(f"| `{setting}` | {' | '.join(cells)} |")
    return "\n".join((*lines, ""))
