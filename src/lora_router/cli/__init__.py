"""The command line. Each command reads its settings, calls one function, and reports errors.

Exit status: 0 success; 1 the command ran and failed, or the reader of its output went away
(``lora-router config | head -1``); 2 the settings or arguments are invalid, or a file that they
name; 130 interrupted.
"""

import errno
import os
import sys

from lora_router.cli import standard_streams
from lora_router.garbage import collect_seldom_at_start
from lora_router.signals import hangups, stops

_INTERRUPTED = 130
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
"""What is wrong where output cannot be written. The last one: it was closed (``>&-``)."""


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    serves = sys.argv[1:2] == ["serve"]
    if serves:
        stops.hold()
        hangups.hold()
    standard_streams.provide(output_matters=not serves)
    collect_seldom_at_start()
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
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        standard_streams.discard_output()
        sys.exit(1)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        standard_streams.last_words(f"lora-router: cannot write: {error.strerror}\n")
        standard_streams.discard_output()
        sys.exit(1)
