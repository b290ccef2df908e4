"""Fixtures of the fault tests."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.field import Field
from tests.faults.figures import Figures


@pytest.fixture(scope="session")
def figures() -> Iterator[Figures]:
    """Collect figures; write them at the end into the file that FAULTS_FIGURES names."""
    found = Figures()
    yield found
    if file := os.environ.get("FAULTS_FIGURES"):
        found.write(Path(file))


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(started: Field) -> AsyncIterator[Field]:
    """The gateway that a module has ``started``, restored after each test."""
    yield started
    await started.restore()
