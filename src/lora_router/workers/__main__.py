"""A worker's process: ``python -m lora_router.workers CONTROL DESCRIPTORS LIFELINE``.

The arguments are file descriptors that the parent opened. It alone starts this program.
"""

import os
import signal
import sys

for _number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    # The parent receives them for all. A service manager may send them to every process.
    signal.signal(_number, signal.SIG_IGN)

if __name__ == "__main__":
    from lora_router.garbage import collect_seldom_at_start

    collect_seldom_at_start()

    from lora_router.workers.run import run

    control, descriptors, lifeline = map(int, sys.argv[1:4])
    status = run(control, descriptors, lifeline)
    # Nothing is left to do, and a thread that hangs must not keep the process.
    os._exit(status)
