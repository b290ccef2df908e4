"""The command line. Each command reads its settings, calls one function, and reports errors.

Exit status: 0 success; 1 the command ran and failed, or the reader of its output went away
(``lora-router config | head -1``); 2 the settings or arguments are invalid; 130 interrupted.
"""

import os
import sys

from lora_router.garbage import collect_seldom_at_start
from lora_router.signals import hangups

_INTERRUPTED = 130


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    if sys.argv[1:2] == ["serve"]:
        hangups.hold()
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
            if sys.stdout is not None:  # As it is after ``>&-``.
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
