"""Work that is done in steps, so that requests are served in between.

Long work is a generator: it yields after each step that takes a fraction of a millisecond, and
returns its result. The same work can therefore be done at once (in a test, in a command) or with
breaks (in the router).
"""

from collections.abc import Generator
from typing import TypeVar

_Result = TypeVar("_Result")

Steps = Generator[None, None, _Result]
"""Yields after each step, and returns a result."""


def all_at_once(steps: Steps[_Result]) -> _Result:
    """Do all steps, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: _Result = end.value
            return result


def no_steps() -> Steps[None]:
    """Do nothing."""
    yield from ()


def in_turn(*works: Steps[None]) -> Steps[None]:
    """Do one work after the other."""
    for each in works:
        yield from each
