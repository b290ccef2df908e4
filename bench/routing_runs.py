"""The runs of the routing tables, kept in a file, so that what was run is not run again.

Each line of the file is one run: what was run, and its figures. A run is found again by everything
that decides its outcome: the content of the setting, the rate, the policy, the seed, and the code.
An interrupted command goes on where it was.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from bench.code_versions import code_version
from bench.routing_settings import Setting, play
from lora_router.simulator.no_value import for_json, from_json
from lora_router.simulator.summary import Summary

Key = tuple[str, float, str, int]
"""The content of the setting, the rate, the policy, and the seed."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run that is wanted."""

    setting: Setting
    load: float
    """Share of the setting's capacity."""
    rate: float
    """Requests per second."""
    policy: str
    seed: int

    @property
    def key(self) -> Key:
        """What it is found by."""
        return self.setting.content, round(self.rate, 6), self.policy, self.seed


class RunFile:
    """The runs that were made."""

    def __init__(self, path: Path, version: Callable[[str], str] = code_version) -> None:
        """Read the file, if there is one.

        Args:
            path: The file.
            version: Returns the code of a policy. Runs of other code are ignored, and kept.

        Raises:
            ValueError: A line is not a run. The message names the file and the line. An incomplete
                last line is not an error: the command was interrupted there.
        """
        self._path = path
        self._version = version
        self._found: dict[Key, Summary] = {}
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        self._incomplete = 0
        """Bytes of an incomplete last line. The next line takes its place."""
        if lines and not lines[-1].endswith("\n"):
            self._incomplete = len(lines.pop().encode())
        for number, line in enumerate(lines, 1):
            try:
                document = json.loads(line)
                if document["version"] == version(document["policy"]):
                    self._found[_key_of(document)] = _summary_of(document["figures"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: is not a run: {error!r}") from None

    def get(self, run: Run) -> Summary | None:
        """Return the figures of a run; ``None``: it was not made."""
        return self._found.get(run.key)

    def add(self, run: Run, summary: Summary) -> None:
        """Add a run, and write it to the file at once."""
        self._found[run.key] = summary
        figures = {name: value for name, value in asdict(summary).items() if name != "fleet"}
        document = {
            "version": self._version(run.policy),
            "scenario": run.setting.name,
            "content": run.setting.content,
            "load": run.load,
            "rate": run.rate,
            "policy": run.policy,
            "seed": run.seed,
            "figures": figures,
        }
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._incomplete:
            os.truncate(self._path, self._path.stat().st_size - self._incomplete)
            self._incomplete = 0
        with self._path.open("a") as file:
            file.write(json.dumps(for_json(document)) + "\n")


def make_runs(file: RunFile, wanted: Sequence[Run], processes: int) -> None:
    """Make the runs that the file lacks. Progress is printed to standard error.

    Args:
        file: Where they are kept.
        wanted: The runs, those that are needed first at the beginning.
        processes: How many are made at the same time.
    """
    missing = [run for run in wanted if file.get(run) is None]
    if not missing:
        return
    started = time.monotonic()
    with ProcessPoolExecutor(processes) as workers:
        under_way: dict[Future[Summary], Run] = {
            workers.submit(play, run.setting, run.rate, run.policy, run.seed): run
            for run in missing
        }
        try:
            for number, future in enumerate(as_completed(under_way), 1):
                run = under_way[future]
                file.add(run, future.result())
                print(
                    f"{number} of {len(missing)}, {time.monotonic() - started:.0f} s: "
                    f"{run.setting.name}, {run.load:.0%}, {run.policy}, seed {run.seed}",
                    file=sys.stderr,
                )
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            raise


def _key_of(document: Mapping[str, Any]) -> Key:
    return (
        str(document["content"]),
        round(float(document["rate"]), 6),
        str(document["policy"]),
        int(document["seed"]),
    )


def _summary_of(figures: Mapping[str, Any]) -> Summary:
    known: Iterable[str] = (each.name for each in fields(Summary) if each.name != "fleet")
    return Summary(**{name: cast("Any", from_json(figures[name])) for name in known})
