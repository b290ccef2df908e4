"""Translation of Kubernetes pods to pods of the fleet."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.discovery.pod_object import PodObject, PortRules, to_pod
from lora_router.fleet.pod import Pod


def pod_object(
    *,
    ip: str | None = "10.0.0.7",
    ready: str | None = "True",
    labels: dict[str, str] | None = None,
    containers: list[dict[str, object]] | None = None,
    **metadata: object,
) -> PodObject:
    document = {
        "metadata": {"name": "vllm-0", "namespace": "ml", "uid": "u-1", "labels": labels}
        | metadata,
        "spec": {"containers": containers or [{"name": "vllm"}], "hostNetwork": True},
        "status": {
            "phase": "Running",
            **({} if ip is None else {"podIP": ip}),
            **({} if ready is None else {"conditions": [{"type": "Ready", "status": ready}]}),
        },
    }
    return msgspec.json.decode(msgspec.json.encode(document), type=PodObject)


def good(found: PodObject, rules: PortRules | None = None) -> Pod:
    pod, problems = to_pod(found, rules or PortRules())
    assert problems == ()
    assert pod is not None
    return pod


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
    assert to_pod(pod_object(ip=None), PortRules()) == (None, ())
    ended = msgspec.structs.replace(
        pod_object(), status=msgspec.structs.replace(pod_object().status, phase="Succeeded")
    )
    assert to_pod(ended, PortRules()) == (None, ())


def test_an_address_that_is_none_is_a_problem() -> None:
    pod, problems = to_pod(pod_object(ip="vllm-0.local"), PortRules())
    assert pod is None
    assert problems == ("status.podIP='vllm-0.local' is not an IP address; the pod is ignored",)


def test_an_ipv6_address_stands_in_brackets() -> None:
    pod = good(pod_object(ip="FD00::0:7"))
    assert pod.address == "[fd00::7]:8000"
    assert pod.metrics_url == "http://[fd00::7]:8000/metrics"


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

    def test_then_the_default(self) -> None:
        assert good(pod_object(), PortRules(port=9000)).address == "10.0.0.7:9000"

    @pytest.mark.parametrize("text", ["", "0", "65536", "80.80", "http", "-1", "٨٠", "9" * 40])
    def test_a_label_that_is_no_port_is_one_problem_and_the_default(self, text: str) -> None:
        pod, problems = to_pod(pod_object(labels={"model.aibrix.ai/port": text}), PortRules())
        assert pod is not None
        assert pod.address == "10.0.0.7:8000"
        assert problems == (
            f"label model.aibrix.ai/port={text!r} must be a port from 1 to 65535; 8000 is used",
        )

    def test_the_metrics_are_on_the_port_of_requests_unless_labelled(self) -> None:
        labels = {"model.aibrix.ai/port": "9001", "model.aibrix.ai/metric-port": "none"}
        pod, problems = to_pod(pod_object(labels=labels), PortRules())
        assert pod is not None
        assert pod.metrics_url == "http://10.0.0.7:9001/metrics"
        assert "9001 is used" in problems[0]


class TestEngine:
    @pytest.mark.parametrize("engine", ["vllm", "sglang"])
    def test_a_known_one_is_taken(self, engine: str) -> None:
        assert good(pod_object(labels={"model.aibrix.ai/engine": engine})).engine == engine

    def test_an_unknown_one_is_a_problem_and_detected_from_the_page(self) -> None:
        pod, problems = to_pod(pod_object(labels={"model.aibrix.ai/engine": "tgi"}), PortRules())
        assert pod is not None
        assert pod.engine is None
        assert problems == (
            "label model.aibrix.ai/engine='tgi' must be one of vllm, sglang; "
            "the engine is detected from its metrics page",
        )


def test_an_empty_model_label_names_no_model() -> None:
    assert good(pod_object(labels={"model.aibrix.ai/name": ""})).base_model is None


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
    pod, _ = to_pod(pod_object(labels=labels, ip=ip), PortRules())
    if pod is not None:
        host, _, number = pod.address.rpartition(":")
        assert host
        assert 0 < int(number) < 65536
