"""The command line. Each command reads its settings, calls one function, and reports errors.

Exit status: 0 success; 1 the command ran and failed, or the reader of its output went away
(``lora-router config | head -1``); 2 the settings or arguments are invalid; 130 interrupted.
"""

import errno
import io
import os
import sys

from lora_router.garbage import collect_seldom_at_start
from lora_router.signals import hangups

_INTERRUPTED = 130
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    if sys.argv[1:2] == ["serve"]:
        hangups.hold()
    collect_seldom_at_start()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name or a line of a table that the encoding lacks (``LC_ALL=en_US.ISO-8859-1``) must
            # not cost the rest.
            stream.reconfigure(errors="backslashreplace")
    # Pydantic would read the metadata of every installed package to find plug-ins of its own.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        # Imported here, because Ctrl-C can also come while Python still reads the modules.
        from lora_router.cli.commands import app

        try:
            app()
        finally:
            # What is still buffered is written here, where an error can be caught. At exit Python
            # prints it and ends with status 120.
            if sys.stdout is not None:  # As it is after ``>&-``.
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        _discard_output()
        sys.stderr.write(f"lora-router: cannot write: {error.strerror}\n")
        sys.exit(1)


def _discard_output() -> None:
    """Let what is still buffered go nowhere. Python would try again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
