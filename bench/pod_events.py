"""How long the router takes to learn of a change of a pod: ``make bench-pods`` (``ARGS=--json``).

The bench runs a real API server and etcd on this machine, with 200 pods and one watcher. It changes
the readiness of pods through the API. It measures the time until the fleet has the change, from the
time at which the change was sent, and from the time at which the API server acknowledged it
(negative: the router had the change before the acknowledgement arrived).
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from lora_router.discovery.kubernetes import KubernetesOptions, KubernetesPods
from lora_router.discovery.kubernetes_api import Credentials
from lora_router.fleet.fleet import Fleet
from lora_router.telemetry.metrics import Telemetry
from tests.kube.binaries import API_SERVER, why_not
from tests.kube.server import KubeServer

PODS = 200
CHANGES = 500


async def measure(server: KubeServer) -> tuple[list[float], list[float]]:
    """Return milliseconds since sending and since the acknowledgement of each change."""
    fleet = Fleet()
    options = KubernetesOptions(namespaces=("default",), credentials=Credentials(server.kubeconfig))
    pods = KubernetesPods(fleet, options, Telemetry(fleet))
    since_sent, since_done = [], []
    async with server.admin() as admin:
        for number in range(PODS):
            await admin.pod("default", f"pod-{number}", ip=f"10.0.{number // 250}.{number % 250}")
        await pods.start()
        try:
            await pods.synced()
            heard = asyncio.Event()
            at = 0.0

            def listen(_changed: object) -> None:
                nonlocal at
                at = time.perf_counter()
                heard.set()

            fleet.changes.pods.subscribe(listen)
            for number in range(CHANGES):
                heard.clear()
                name, ready = f"pod-{number % PODS}", number // PODS % 2 == 1
                ip = f"10.0.{number % PODS // 250}.{number % PODS % 250}"
                sent = time.perf_counter()
                await admin.pod_status("default", name, ip=ip, ready=ready)
                done = time.perf_counter()
                async with asyncio.timeout(5):
                    await heard.wait()
                since_sent.append((at - sent) * 1000)
                since_done.append((at - done) * 1000)
        finally:
            await pods.stop()
    return since_sent, since_done


def summary(milliseconds: list[float]) -> dict[str, float]:
    """Return the figures that are printed."""
    cuts = statistics.quantiles(milliseconds, n=100)
    return {
        "p50": round(cuts[49], 2),
        "p99": round(cuts[98], 2),
        "max": round(max(milliseconds), 2),
    }


async def main() -> None:
    """Measure and print."""
    missing = why_not(API_SERVER)
    if missing is not None:
        sys.exit(missing)
    with tempfile.TemporaryDirectory(prefix="bench-pod-events-") as folder:
        server = KubeServer(Path(folder))
        try:
            await server.start()
            sent, done = await measure(server)
        finally:
            await server.stop()
    result = {"changes": CHANGES, "pods": PODS, "since_sent_ms": summary(sent)}
    result["since_answered_ms"] = summary(done)
    if "--json" in sys.argv[1:]:
        print(json.dumps(result))
        return
    print(f"{CHANGES} changes of readiness among {PODS} pods, milliseconds:")
    for name in ("since_sent_ms", "since_answered_ms"):
        figures = "  ".join(f"{key} {value:.1f}" for key, value in result[name].items())  # type: ignore[attr-defined]
        print(f"  {name.removesuffix('_ms').replace('_', ' '):<15}  {figures}")


if __name__ == "__main__":
    asyncio.run(main())
