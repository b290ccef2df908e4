"""The same seed gives the same figures, in whatever order Python has the names in its sets."""

import os
import subprocess
import sys

import pytest


def played(hash_seed: int) -> bytes:
    command = "simulate b-zipf --load 0.85 --duration 100 --seed 5 --algorithm lora-placement"
    several = "--routers 2 --peers peering --json"
    return subprocess.run(
        (sys.executable, "-m", "lora_router", *command.split(), *several.split()),
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        check=True,
        capture_output=True,
    ).stdout


@pytest.mark.slow
def test_several_routers_do_the_same_again() -> None:
    assert played(1) == played(2)
