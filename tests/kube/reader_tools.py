"""What a reader of a page calls, where there is an API server and no cluster.

``helm`` is the Helm engine as a library. ``kubectl`` is kubectl; commands that need a kubelet only
look whether the object exists, except for ``exec``, which runs here. ``curl`` reaches the router at
``localhost:8080``. ``docker`` and Envoy Gateway's chart are compared with what the project pins.

    python -m tests.kube.reader_tools TOOL ARGUMENT...
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

from tests.chart import CHART
from tests.kube.binaries import find

ROOT = CHART.parents[2]
KUBELET = {"rollout", "logs", "exec", "port-forward"}
"""Commands of kubectl that need nodes or controllers."""
GATEWAY_ADDRESS = "192.0.2.80"
"""The address that the test gives the Gateway."""


def main(tool: str, arguments: Sequence[str]) -> int:
    """Run one tool. Returns its exit status."""
    tools: dict[str, Callable[[Sequence[str]], int]] = {
        "helm": _helm,
        "kubectl": _kubectl,
        "docker": _docker,
        "curl": _curl,
    }
    return tools[tool](arguments)


def _helm(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="helm")
    parser.add_argument("command", choices=["install", "upgrade", "uninstall", "test"])
    parser.add_argument("name")
    parser.add_argument("chart", nargs="?")
    parser.add_argument("-n", "--namespace", default="default")
    parser.add_argument("--version")
    parser.add_argument("--create-namespace", action="store_true")
    parser.add_argument("--reset-then-reuse-values", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args(arguments)
    if given.command == "test":
        return 0  # Its pod needs a kubelet. test_chart.py plays one.
    if given.chart is not None and given.chart.startswith("oci://"):
        pinned = (ROOT / "scripts/go/egctl/go.mod").read_text()
        assert f"github.com/envoyproxy/gateway {given.version} " in pinned, given.version
        return 0
    values: dict[str, Any] = {}
    path = os.environ["KUBECONFIG"]
    with helm.Config(kubeconfig_path=path, namespace=given.namespace) as config:
        if given.command == "uninstall":
            config.uninstall(given.name)
            return 0
        if given.reset_then_reuse_values:
            values = config.get_values(given.name)
        for each in given.set:
            values = _merged(values, helm.parse_set_string(each))
        run = config.install if given.command == "install" else config.upgrade
        try:
            released = run(ROOT / given.chart, given.name, values)
        except helm.HelmError as refused:
            print(f"Error: {refused}", file=sys.stderr)
            return 1
    print(released["notes"])
    return 0


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    merged = deepcopy(first)
    for name, value in second.items():
        below = merged.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[name] = _merged(below or {}, value) if both else value
    return merged


def _kubectl(arguments: Sequence[str]) -> int:
    needs_kubelet = KUBELET.intersection(arguments)
    if not needs_kubelet:
        return subprocess.run([_binary(), *arguments], check=False).returncode
    [deployment] = [each for each in arguments if each.startswith("deployment/")]
    namespace = arguments[arguments.index("-n") + 1]
    answer = [_binary(), "-n", namespace, "get", deployment, "-o", "json"]
    found = json.loads(subprocess.run(answer, check=True, capture_output=True).stdout)
    if needs_kubelet != {"exec"}:
        return 0
    command = arguments[arguments.index("--") + 1 :]
    return _execute(command, found["metadata"]["name"], namespace)


def _execute(command: Sequence[str], name: str, namespace: str) -> int:
    """Run a command of the router's container, with its settings file."""
    get = [_binary(), "-n", namespace, "get", "configmap", name, "-o", "json"]
    found = json.loads(subprocess.run(get, check=True, capture_output=True).stdout)
    program, *rest = command
    assert program == "lora-router"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(found["data"]["config.yaml"])
        moved = [each.replace("/etc/lora-router", folder) for each in rest]
        run = [sys.executable, "-m", "lora_router", *moved]
        return subprocess.run(run, check=False).returncode


def _binary() -> str:
    found = find("kubectl")
    assert found is not None
    return str(found)


def _docker(arguments: Sequence[str]) -> int:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert (ROOT / "Dockerfile").is_file()
    assert any(each.endswith(f"/lora-router:{version}") for each in arguments), arguments
    return 0


def _curl(arguments: Sequence[str]) -> int:
    [url] = [each for each in arguments if re.match(r"https?://|localhost", each)]
    if url.startswith("localhost:8080"):
        here = url.replace("localhost:8080", os.environ["ROUTER_ADMIN"])
        with urllib.request.urlopen(f"http://{here}") as response:
            print(response.read().decode())
        return 0
    assert url == f"http://{GATEWAY_ADDRESS}/v1/chat/completions", url
    json.loads(arguments[arguments.index("-d") + 1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
