"""``scripts/kube-test-server``: build the programs, or run an API server to try things out."""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.kube.binaries import (
    API_SERVER,
    CONFORMANCE,
    GATEWAY_TRANSLATOR,
    KUBECTL,
    MissingError,
    build,
)

_ALL = (*API_SERVER, *GATEWAY_TRANSLATOR, *CONFORMANCE, *KUBECTL)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="scripts/kube-test-server", description=__doc__)
    parser.add_argument("command", choices=["build", "run"])
    command = parser.parse_args().command
    try:
        for name in _ALL if command == "build" else API_SERVER:
            began = time.monotonic()
            print(f"{name}: {build(name)} ({time.monotonic() - began:.0f} s)", flush=True)
    except MissingError as error:
        print(error, file=sys.stderr)
        return 1
    if command == "run":
        asyncio.run(_run())
    return 0


async def _run() -> None:
    # Needs packages, which `build` does not.
    from tests.kube.server import KubeServer

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="kube-test-server-") as folder:
        server = KubeServer(Path(folder))
        try:
            await server.start()
            print(f"export KUBECONFIG={server.kubeconfig}", flush=True)
            await stop.wait()
        finally:
            await server.stop()


if __name__ == "__main__":
    sys.exit(main())
