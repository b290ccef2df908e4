"""Standard input, output and error, where they were closed (``>&-``) or cannot be written.

Python has ``None`` in place of a stream that was closed. The next file or socket that the process
opens gets its number, and what a library writes to "standard error" then goes to a client.
"""

import io
import os
import sys
from contextlib import suppress


def provide(*, output_matters: bool) -> None:
    """Open what was closed.

    Standard input then fails when it is read, and standard error goes nowhere.

    Args:
        output_matters: Whether standard output fails when it is written to, as a full disk does.
            Otherwise it goes nowhere: nobody reads that of a server.
    """
    _open_if_closed(0, os.O_WRONLY)
    _open_if_closed(1, os.O_RDONLY if output_matters else os.O_RDWR)
    _open_if_closed(2, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 -- for the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name or a line of a table that the encoding lacks (``LC_ALL=en_US.ISO-8859-1``) must
            # not cost the rest.
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Let what is still buffered go nowhere. Python would try again at exit."""
    _discard(1)
    _discard(2)


def last_words(text: str) -> None:
    """Write to standard error. If that cannot be done, the exit status says enough."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _discard(2)  # As in ``discard_output``.


def _open_if_closed(number: int, mode: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, mode)
        if opened != number:
            os.dup2(opened, number, inheritable=True)
            os.close(opened)
        else:
            os.set_inheritable(number, True)


def _discard(number: int) -> None:
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
