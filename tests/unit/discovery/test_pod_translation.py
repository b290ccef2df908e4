"""Translation of Kubernetes pods to pods of the fleet."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from lora_router.discovery.page_urls import PageRules
from lora_router.discovery.pod_object import PodObject
from lora_router.discovery.pod_ports import PortRules
from lora_router.discovery.pod_translation import Family, to_pods
from lora_router.fleet.engine_names import ENGINES, METRICS_PATHS
from lora_router.fleet.pod import Pod


def pod_object(
    *,
    ip: str | None = "10.0.0.7",
    ready: str | None = "True",
    labels: dict[str, str] | None = None,
    containers: list[dict[str, object]] | None = None,
    init_containers: list[dict[str, object]] | None = None,
    ips: list[str] | None = None,
    **metadata: object,
) -> PodObject:
    document = {
        "metadata": {"name": "vllm-0", "namespace": "ml", "uid": "u-1", "labels": labels}
        | metadata,
        "spec": {
            "containers": containers or [{"name": "vllm"}],
            "initContainers": init_containers,
            "hostNetwork": True,
        },
        "status": {
            "phase": "Running",
            **({} if ip is None else {"podIP": ip}),
            **({} if ips is None else {"podIPs": [{"ip": each} for each in ips]}),
            **({} if ready is None else {"conditions": [{"type": "Ready", "status": ready}]}),
        },
    }
    return msgspec.json.decode(msgspec.json.encode(document), type=PodObject)


def good(found: PodObject, rules: PortRules | None = None) -> Pod:
    [pod], problems = to_pods(found, rules or PortRules())
    assert problems == ()
    return pod


def addresses(found: PodObject, rules: PortRules | None = None) -> dict[str, str]:
    """Return the address of each pod of the fleet that a pod is, by name."""
    pods, problems = to_pods(found, rules or PortRules())
    assert problems == ()
    return {pod.name: pod.address for pod in pods}


def port(number: object, name: str = "", protocol: str = "TCP") -> dict[str, object]:
    return {"containerPort": number, "name": name, "protocol": protocol}


def test_a_ready_pod() -> None:
    labels = {"model.aibrix.ai/name": "llama", "gpu": "h100"}
    assert good(pod_object(labels=labels)) == Pod(
        name="ml/vllm-0",
        address="10.0.0.7:8000",
        metrics_url="http://10.0.0.7:8000/metrics",
        models_url="http://10.0.0.7:8000/v1/models",
        ready=True,
        base_model="llama",
        uid="u-1",
        labels=labels,
    )


@pytest.mark.parametrize(
    "found",
    [
        pod_object(ready="False"),
        pod_object(ready="Unknown"),
        pod_object(ready=None),
        pod_object(deletionTimestamp="2026-11-24T12:00:00Z"),
    ],
)
def test_a_pod_that_is_unready_or_terminating_gets_no_requests(found: PodObject) -> None:
    assert not good(found).ready


def test_a_pod_without_an_address_or_with_its_containers_ended_is_none() -> None:
    assert to_pods(pod_object(ip=None), PortRules()) == ((), ())
    ended = msgspec.structs.replace(
        pod_object(), status=msgspec.structs.replace(pod_object().status, phase="Succeeded")
    )
    assert to_pods(ended, PortRules()) == ((), ())


def test_an_address_that_is_none_is_a_problem() -> None:
    pods, problems = to_pods(pod_object(ip="vllm-0.local"), PortRules())
    assert pods == ()
    assert problems == ("status.podIP='vllm-0.local' is not an IP address; the pod is ignored",)


def test_an_ipv6_address_stands_in_brackets() -> None:
    pod = good(pod_object(ip="FD00::0:7"))
    assert pod.address == "[fd00::7]:8000"
    assert pod.metrics_url == "http://[fd00::7]:8000/metrics"


class TestAddresses:
    BOTH = ("10.0.0.7", "fd00::7")

    def test_the_first_is_the_clusters_main_family(self) -> None:
        assert good(pod_object(ips=list(self.BOTH))).address == "10.0.0.7:8000"
        six_first = pod_object(ip="fd00::7", ips=["fd00::7", "10.0.0.7"])
        assert good(six_first).address == "[fd00::7]:8000"

    def test_podips_suffice(self) -> None:
        assert good(pod_object(ip=None, ips=["fd00::7"])).address == "[fd00::7]:8000"

    @pytest.mark.parametrize(
        ("family", "address"), [("ipv4", "10.0.0.7:8000"), ("ipv6", "[fd00::7]:8000")]
    )
    def test_a_setting_chooses_the_family(self, family: Family, address: str) -> None:
        [pod], _ = to_pods(pod_object(ips=list(self.BOTH)), PortRules(), family)
        assert pod.address == address

    def test_a_pod_without_an_address_of_the_family_is_a_problem(self) -> None:
        pods, problems = to_pods(pod_object(ips=["10.0.0.7"]), PortRules(), "ipv6")
        assert pods == ()
        assert problems == (
            "status.podIPs has no ipv6 address, which kubernetes_ip_family asks for; the pod is "
            "ignored",
        )


class TestPorts:
    def test_the_label_comes_first(self) -> None:
        labels = {"model.aibrix.ai/port": "9001", "model.aibrix.ai/metric-port": "9002"}
        pod = good(pod_object(labels=labels, containers=[{"ports": [port(80, "http")]}]))
        assert pod.address == "10.0.0.7:9001"
        assert pod.models_url == "http://10.0.0.7:9001/v1/models"
        assert pod.metrics_url == "http://10.0.0.7:9002/metrics"

    def test_then_the_container_port_with_the_name(self) -> None:
        containers: list[dict[str, object]] = [
            {"name": "sidecar", "ports": None},
            {"name": "proxy", "ports": [port(1), port(2, "admin"), port(3, "http", "UDP")]},
            {"name": "vllm", "ports": [port(8080, "http"), port(8081, "serve")]},
        ]
        assert good(pod_object(containers=containers)).address == "10.0.0.7:8080"
        named = good(pod_object(containers=containers), PortRules(port_name="serve"))
        assert named.address == "10.0.0.7:8081"

    def test_also_of_a_native_sidecar_but_not_of_other_init_containers(self) -> None:
        proxy: list[dict[str, object]] = [
            {"name": "download", "ports": [port(1, "http")]},
            {"name": "once", "restartPolicy": "OnFailure", "ports": [port(2, "http")]},
            {"name": "proxy", "restartPolicy": "Always", "ports": [port(8443, "http")]},
        ]
        assert good(pod_object(init_containers=proxy)).address == "10.0.0.7:8443"

    def test_a_container_comes_before_a_native_sidecar(self) -> None:
        found = pod_object(
            containers=[{"name": "vllm", "ports": [port(8080, "http")]}],
            init_containers=[{"restartPolicy": "Always", "ports": [port(8443, "http")]}],
        )
        assert good(found).address == "10.0.0.7:8080"

    def test_then_the_default(self) -> None:
        assert good(pod_object(), PortRules(port=9000)).address == "10.0.0.7:9000"

    @pytest.mark.parametrize(
        "text", ["", "0", "65536", "80.80", "http", "-1", "٨٠", "9" * 40, "00050000000"]
    )
    def test_a_label_that_is_no_port_is_one_problem_and_the_default(self, text: str) -> None:
        [pod], problems = to_pods(pod_object(labels={"model.aibrix.ai/port": text}), PortRules())
        assert pod.address == "10.0.0.7:8000"
        assert problems == (
            f"label model.aibrix.ai/port={text!r} must be a port from 1 to 65535; 8000 is used",
        )

    def test_the_metrics_are_on_the_port_of_requests_unless_labelled(self) -> None:
        labels = {"model.aibrix.ai/port": "9001", "model.aibrix.ai/metric-port": "none"}
        [pod], problems = to_pods(pod_object(labels=labels), PortRules())
        assert pod.metrics_url == "http://10.0.0.7:9001/metrics"
        assert "9001 is used" in problems[0]


class TestPages:
    """Where the pages of a pod are."""

    def test_each_engine_has_its_metrics_at_its_own_path(self) -> None:
        for engine, path in METRICS_PATHS.items():
            pod = good(pod_object(labels={"model.aibrix.ai/engine": engine}))
            assert pod.metrics_url == f"http://10.0.0.7:8000{path}"

    def test_annotations_say_the_scheme_and_the_paths(self) -> None:
        found = pod_object(
            labels={"model.aibrix.ai/metric-port": "9000", "model.aibrix.ai/engine": "nim"},
            annotations={
                "lora-router/scheme": "https",
                "lora-router/metrics-path": "/stats?model=llama",
                "lora-router/models-path": "/openai/v1/models",
            },
        )
        pod = good(found)

        assert pod.scheme == "https"
        assert pod.metrics_url == "https://10.0.0.7:9000/stats?model=llama"
        assert pod.models_url == "https://10.0.0.7:8000/openai/v1/models"

    def test_settings_hold_for_pods_that_do_not_say_it(self) -> None:
        rules = PageRules("https", "/m", "/l")
        pods, _ = to_pods(pod_object(), PortRules(), pages=rules)
        plain = {"lora-router/scheme": "http"}
        others, _ = to_pods(pod_object(annotations=plain), PortRules(), pages=rules)

        assert [(pod.metrics_url, pod.models_url) for pod in (*pods, *others)] == [
            ("https://10.0.0.7:8000/m", "https://10.0.0.7:8000/l"),
            ("http://10.0.0.7:8000/m", "http://10.0.0.7:8000/l"),
        ]

    @pytest.mark.parametrize("text", ["", "metrics", "http://x.test/", "/a b", "/ä", "/\n", "/#x"])
    def test_a_path_that_is_none_is_one_problem_and_ignored(self, text: str) -> None:
        found = pod_object(annotations={"lora-router/metrics-path": text})
        [pod], problems = to_pods(found, PortRules())

        assert pod.metrics_url == "http://10.0.0.7:8000/metrics"
        assert len(problems) == 1
        assert "annotation lora-router/metrics-path=" in problems[0]
        assert problems[0].endswith("; it is ignored")

    def test_no_path_leads_to_another_host(self) -> None:
        for path in ("//evil.test/", "/@evil.test/", "/\\evil.test/"):
            found = pod_object(annotations={"lora-router/metrics-path": path})
            [pod], _ = to_pods(found, PortRules())
            assert URL(pod.metrics_url).host == "10.0.0.7"

    def test_a_scheme_that_is_none_is_one_problem_and_the_default(self) -> None:
        found = pod_object(annotations={"lora-router/scheme": "h2c" * 100})
        [pod], problems = to_pods(found, PortRules())

        assert pod.scheme == "http"
        assert problems == (
            f"annotation lora-router/scheme={('h2c' * 100)[:60]!r} must be http or https; "
            "http is used",
        )


class TestRanks:
    """A pod with a server on each of several ports."""

    def test_an_annotation_lists_the_ports(self) -> None:
        found = pod_object(
            labels={"model.aibrix.ai/name": "llama", "model.aibrix.ai/port": "8000"},
            annotations={"lora-router/ports": "8000, 8001", "other": "x"},
        )
        pods, problems = to_pods(found, PortRules())
        assert problems == ()
        assert [(pod.name, pod.address, pod.metrics_url) for pod in pods] == [
            ("ml/vllm-0-rank-0", "10.0.0.7:8000", "http://10.0.0.7:8000/metrics"),
            ("ml/vllm-0-rank-1", "10.0.0.7:8001", "http://10.0.0.7:8001/metrics"),
        ]
        assert {(pod.uid, pod.base_model, pod.pool) for pod in pods} == {
            ("u-1", "llama", "ml/llama")
        }

    def test_all_are_as_ready_as_the_pod(self) -> None:
        ports = {"lora-router/ports": "8000,8001"}
        for ready in ("True", "False"):
            pods, _ = to_pods(pod_object(ready=ready, annotations=ports), PortRules())
            assert [pod.ready for pod in pods] == [ready == "True"] * 2

    def test_one_port_is_a_pod_with_its_own_name(self) -> None:
        found = pod_object(annotations={"lora-router/ports": "9000"})
        assert addresses(found) == {"ml/vllm-0": "10.0.0.7:9000"}

    @pytest.mark.parametrize(
        "text", ["", "8000,", "8000 8001", "8000,0", "8000,8000", ",".join(map(str, range(1, 99)))]
    )
    def test_a_list_that_is_none_is_a_problem_and_the_default_is_used(self, text: str) -> None:
        [pod], problems = to_pods(pod_object(annotations={"lora-router/ports": text}), PortRules())
        assert pod.address == "10.0.0.7:8000"
        assert problems == (
            f"annotation lora-router/ports={text[:60]!r} must be up to 32 different ports, joined "
            "by commas; the default is used",
        )

    def test_each_has_its_own_metrics_port(self) -> None:
        ports = {"lora-router/ports": "8000,8001", "lora-router/metric-ports": "9000,9001"}
        pods, problems = to_pods(pod_object(annotations=ports), PortRules())
        assert problems == ()
        assert [pod.metrics_url for pod in pods] == [
            "http://10.0.0.7:9000/metrics",
            "http://10.0.0.7:9001/metrics",
        ]

    def test_one_metrics_port_for_several_servers_is_a_problem(self) -> None:
        ports = {"lora-router/ports": "8000,8001"}
        labels = {"model.aibrix.ai/metric-port": "9000"}
        pods, [problem] = to_pods(pod_object(annotations=ports, labels=labels), PortRules())
        assert pods[1].metrics_url == "http://10.0.0.7:8001/metrics"
        assert "set the annotation lora-router/metric-ports" in problem

        ports["lora-router/metric-ports"] = "9000"
        pods, [problem] = to_pods(pod_object(annotations=ports), PortRules())
        assert pods[1].metrics_url == "http://10.0.0.7:8001/metrics"
        assert "must have as many ports as the pod has for requests, 2" in problem


class TestPortsOfAPool:
    POOL = PortRules(pool=(8000, 8001))

    def test_each_port_of_the_pool_is_an_endpoint_of_each_pod(self) -> None:
        assert addresses(pod_object(), self.POOL) == {
            "ml/vllm-0-rank-0": "10.0.0.7:8000",
            "ml/vllm-0-rank-1": "10.0.0.7:8001",
        }

    def test_a_pool_with_one_port_keeps_the_pods_name(self) -> None:
        assert addresses(pod_object(), PortRules(pool=(8001,))) == {"ml/vllm-0": "10.0.0.7:8001"}

    def test_what_pods_say_of_their_ports_is_not_used(self) -> None:
        found = pod_object(
            labels={"model.aibrix.ai/port": "9000"},
            annotations={"lora-router/ports": "9000,9001"},
            containers=[{"ports": [port(80, "http")]}],
        )
        assert addresses(found, PortRules(pool=(8000,))) == {"ml/vllm-0": "10.0.0.7:8000"}

    def test_a_pod_may_leave_out_ports(self) -> None:
        active = {"inference.networking.k8s.io/active-ports": "8001,7777"}
        assert addresses(pod_object(annotations=active), self.POOL) == {
            "ml/vllm-0-rank-1": "10.0.0.7:8001"
        }

    def test_the_metrics_port_may_be_another(self) -> None:
        labels = {"model.aibrix.ai/metric-port": "9000"}
        [pod], _ = to_pods(pod_object(labels=labels), PortRules(pool=(8000,)))
        assert pod.metrics_url == "http://10.0.0.7:9000/metrics"


class TestEngine:
    @pytest.mark.parametrize("engine", ENGINES)
    def test_a_known_one_is_taken(self, engine: str) -> None:
        assert good(pod_object(labels={"model.aibrix.ai/engine": engine})).engine == engine

    def test_an_unknown_one_is_a_problem_and_detected_from_the_page(self) -> None:
        [pod], problems = to_pods(
            pod_object(labels={"model.aibrix.ai/engine": "ollama"}), PortRules()
        )
        assert pod.engine is None
        assert problems == (
            "label model.aibrix.ai/engine='ollama' must be one of vllm, sglang, ray, nim, trtllm, "
            "triton, tgi, lmdeploy, llamacpp; the engine is detected from its metrics page",
        )


def test_an_empty_model_label_names_no_model() -> None:
    assert good(pod_object(labels={"model.aibrix.ai/name": ""})).base_model is None


@pytest.mark.slow
@given(
    st.dictionaries(
        st.sampled_from(
            ["model.aibrix.ai/name", "model.aibrix.ai/port", "model.aibrix.ai/metric-port", "x"]
        ),
        st.text(),
    ),
    st.text(),
)
def test_whatever_labels_say_a_pod_is_a_pod_or_none(labels: dict[str, str], ip: str) -> None:
    pods, _ = to_pods(pod_object(labels=labels, ip=ip), PortRules())
    for pod in pods:
        host, _, number = pod.address.rpartition(":")
        assert host
        assert 0 < int(number) < 65536
