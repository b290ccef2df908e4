"""Which tests one worker of pytest-xdist runs as a whole, and which groups of tests begin first.

pytest-xdist's own groups (``xdist_group``) have no effect with pytest 9.2: they change an attribute
that pytest no longer reads. Without groups, each test starts the gateway of its module anew.
"""

TOGETHER = {
    "tests/kube/": "kube",
    "tests/image/": "image",
    "tests/browser/": "browser",
    "tests/prometheus/test_live.py": "prometheus",
    "tests/faults/test_certificates.py": "faults of routers",
    "tests/faults/test_clients.py": "faults of clients",
    "tests/faults/test_keep_alive.py": "faults of clients",
    "tests/faults/test_one_router.py": "faults of routers",
    "tests/faults/test_plug_ins.py": "faults of clients",
    "tests/faults/test_pod_pages.py": "faults of pages",
    "tests/faults/test_pods.py": "faults of pods",
    "tests/faults/test_two_routers.py": "faults of routers",
    "tests/integration/test_bench.py": "whole machine",
    "tests/integration/test_demo.py": "whole machine",
}
"""Folders and modules whose tests run one after the other.

They share something that takes long to make (an API server, an image), or each of them starts so
many processes that two at a time would run out of time. Any other module is a group of its own.
"""
FIRST = (
    *("kube", "whole machine", "faults of routers", "faults of pods"),
    *("faults of clients", "faults of pages", "tests/faults/test_peers.py", "prometheus"),
    *("image", "tests/unit/test_distributions.py", "browser"),
)
"""The groups that take longest, in the order in which they begin: first those that mostly wait. One
that began late would run alone at the end. ``-p tests.costs`` shows how long modules take."""
LONG = (
    "tests/faults/",
    "tests/image/",
    "tests/integration/test_adapters_fleet.py",
    "tests/integration/test_adapters_page.py",
    "tests/integration/test_bench.py",
    "tests/integration/test_demo.py::test_a_child_that_dies",
    "tests/integration/test_demo.py::test_a_demo_that_is_killed",
    "tests/integration/test_demo.py::test_an_interrupted_demo",
    "tests/integration/test_demo.py::test_two_routers",
    "tests/integration/test_envoy_routers.py",
    "tests/integration/test_hosts.py",
    "tests/integration/test_live_fleet.py",
    "tests/integration/test_workers.py",
    "tests/kube/test_chart_peers.py",
    "tests/kube/test_counting.py",
    "tests/kube/test_envoy_gateway_faults.py",
    "tests/kube/test_envoy_gateway_original_dst.py",
    "tests/kube/test_envoy_gateway_paths.py",
    "tests/kube/test_envoy_gateway_services.py",
    "tests/kube/test_envoy_gateway_tokens.py",
    "tests/kube/test_kubernetes_page.py",
    "tests/prometheus/test_alerts.py",
    "tests/unit/simulator/test_fleet_scaling.py",
    "tests/unit/simulator/test_router_goals.py",
    "tests/unit/test_distributions.py",
    "tests/unit/test_surroundings.py",
)
"""What ``make test`` skips: folders, modules, and beginnings of tests. ``make test ALL=1`` and CI
run them.

They are those with the most CPU time for each test: whole fleets of processes, what fails in them,
installations, Envoy Gateway's translator, and simulations of minutes. They are about three tests of
a hundred, and take two fifths of the CPU time.
"""


def takes_long(test: str) -> bool:
    """Return whether ``make test`` skips a test, by its node ID."""
    return test.startswith(LONG)


def group_of(test: str) -> str:
    """Return the group of a test, by its node ID."""
    module = test.partition("::")[0]
    folder = "/".join(module.split("/")[:2]) + "/"
    return TOGETHER.get(folder) or TOGETHER.get(module) or module


def rank(test: str) -> int:
    """Return when a test begins: those of long groups first, unit tests last."""
    group = group_of(test)
    if group in FIRST:
        return FIRST.index(group)
    return len(FIRST) + group.startswith("tests/unit/")
