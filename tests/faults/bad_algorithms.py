"""Algorithms from outside that fail in every way, installed as a package by ``install``."""

import textwrap
from pathlib import Path

from lora_router.routing.registry import GROUP

_SOURCE = '''
"""Algorithms that no one should write."""

import itertools
import time
from types import SimpleNamespace

from lora_router.routing.algorithm import Hold, Pick


class Raises:
    name = "raises"
    interface_version = 2

    def __init__(self, options):
        self._errors = itertools.cycle(
            [ValueError("x"), RecursionError("x"), MemoryError("x"), SystemExit(1), KeyError()]
        )

    def pick(self, request, candidates, now):
        raise next(self._errors)


class Lies:
    name = "lies"
    interface_version = 2

    def __init__(self, options):
        self._turns = itertools.count()

    def pick(self, request, candidates, now):
        pod = candidates[0]
        turn = next(self._turns)
        foreign = SimpleNamespace(
            pod=SimpleNamespace(name="x", address="192.0.2.1:1"), in_flight=0
        )
        answers = [
            None, 42, "pod-0", pod, Pick(None, "none"), Pick(foreign, "foreign"),
            Pick(pod, None), Pick(pod, ["list"]), Pick(pod, f"reason-{turn}"),
            Pick(pod, "x" * 10_000), self._later(), Hold("nan", float("nan")),
            Hold("text", "soon"), Hold(b"bytes", 1.0), Hold("ever", float("inf")),
        ]
        # A hold of a request that may not be held any longer is no lie: it refuses the request.
        if request.may_hold:
            answers += [Hold("minus", -1.0), Hold(f"hold-{turn}", 0.01, wakes_on=None)]
        return answers[turn % len(answers)]

    def _later(self):
        yield None


class Blocks:
    name = "blocks"
    interface_version = 2

    def __init__(self, options):
        pass

    def pick(self, request, candidates, now):
        block_here(0.8)
        return Pick(candidates[0], "late")


def block_here(seconds):
    time.sleep(seconds)
'''


def install(directory: Path) -> Path:
    """Install the package into a folder, in pip's layout; return the folder, for PYTHONPATH."""
    packages = directory / "packages"
    information = packages / "bad_algorithms-1.0.dist-info"
    information.mkdir(parents=True)
    (packages / "bad_algorithms.py").write_text(_SOURCE)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: bad-algorithms\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(
        textwrap.dedent(f"""\
            [{GROUP}]
            raises = bad_algorithms:Raises
            lies = bad_algorithms:Lies
            blocks = bad_algorithms:Blocks
            """)
    )
    return packages
