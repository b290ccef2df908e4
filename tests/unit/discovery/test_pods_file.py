"""Discovery of pods through a YAML file."""

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router import supervision
from lora_router.discovery import pods_file
from lora_router.discovery.page_urls import PageRules
from lora_router.discovery.pods_file import PodsFile
from lora_router.discovery.pods_list import PodsFileError, parse_pods
from lora_router.discovery.quiet_thread import quiet_thread
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LABEL, PODS_FILE, UNLIMITED, LoraSpec
from lora_router.fleet.pod import Pod
from lora_router.supervision import Supervisor
from tests.waiting import until

EXAMPLE = """
pods:
  - name: vllm-0
    address: 10.0.0.7:8000
    metrics: http://10.0.0.7:9000/metrics
    models: [base, sql-lora]
    labels: {gpu: h100, gpus: 8}
  - name: vllm-1
    address: "[FD00::0001]:8000"
    ready: false
    engine: sglang
    max_cpu_loras: unlimited
"""


def test_labels_are_what_was_written_even_if_it_looks_like_a_number() -> None:
    """YAML takes these for 8, 31, 1000 and 90, so that no selector would find them."""
    [pod] = parse_pods(entry(labels="{a: 010, b: 0x1F, c: 1_000, d: 1:30, e: 8}"))
    assert pod.labels == {"a": "010", "b": "0x1F", "c": "1_000", "d": "1:30", "e": "8"}


def test_ports_and_sizes_are_numbers_however_they_are_written() -> None:
    pods = parse_pods(
        "pods: [{name: a, address: 10.0.0.7, ports: [0x1F40, 8_001], max_cpu_loras: 1_000}]"
    )
    assert [pod.address for pod in pods] == ["10.0.0.7:8000", "10.0.0.7:8001"]
    assert pods[0].lora.host_memory == 1000


def test_a_list_is_read() -> None:
    first, second = parse_pods(EXAMPLE)

    assert (first.name, first.address) == ("vllm-0", "10.0.0.7:8000")
    assert first.metrics_url == "http://10.0.0.7:9000/metrics"
    assert first.models_url == "http://10.0.0.7:8000/v1/models"
    assert first.models == ("base", "sql-lora")
    assert first.labels == {"gpu": "h100", "gpus": "8"}
    assert first.ready

    assert second.address == "[fd00::1]:8000"
    assert second.metrics_url == "http://[fd00::1]:8000/metrics"
    assert (second.models, second.engine, second.ready) == (None, "sglang", False)
    assert first.lora == LoraSpec()
    assert second.lora == LoraSpec(host_memory=UNLIMITED, source=PODS_FILE, loads_when_listed=True)


@pytest.mark.parametrize(
    ("keys", "size", "source"),
    [
        ("max_cpu_loras: 16", 16, PODS_FILE),
        ("labels: {lora-router/max-cpu-loras: 16}", 16, LABEL),
        ("max_cpu_loras: 8, labels: {lora-router/max-cpu-loras: 16}", 8, PODS_FILE),
    ],
)
def test_the_size_of_host_memory_is_a_key_or_a_label(keys: str, size: int, source: str) -> None:
    [pod] = parse_pods(f"pods: [{{name: a, address: '10.0.0.1:80', {keys}}}]")
    assert (pod.lora.host_memory, pod.lora.source) == (size, source)


def test_a_pod_with_several_ports_is_a_pod_for_each() -> None:
    pods = parse_pods(
        "pods: [{name: a, address: 10.0.0.7, ports: [8000, 8001], models: [base], ready: false},"
        "{name: b, address: 'fd00::7', ports: [8000, 8001],"
        " metrics: ['http://m:9000/metrics', 'http://m:9001/metrics']},"
        "{name: c, address: '[fd00::8]', ports: [80]}]"
    )

    assert [(pod.name, pod.address) for pod in pods] == [
        ("a-rank-0", "10.0.0.7:8000"),
        ("a-rank-1", "10.0.0.7:8001"),
        ("b-rank-0", "[fd00::7]:8000"),
        ("b-rank-1", "[fd00::7]:8001"),
        ("c", "[fd00::8]:80"),
    ]
    assert pods[1].metrics_url == pods[1].models_url[: -len("/v1/models")] + "/metrics"
    assert [pod.metrics_url for pod in pods[2:4]] == [
        "http://m:9000/metrics",
        "http://m:9001/metrics",
    ]
    assert {(pod.models, pod.ready) for pod in pods[:2]} == {(("base",), False)}


def test_an_empty_list_is_a_list() -> None:
    assert parse_pods("pods: []") == ()


def entry(**keys: str) -> str:
    lines = {"name": "a", "address": "10.0.0.1:80"} | keys
    body = "\n    ".join(f"{key}: {value}" for key, value in lines.items())
    return f"pods:\n  - {body}\n"


def test_a_pod_says_how_it_is_read() -> None:
    text = """
pods:
  - {name: a, address: '10.0.0.1:80', scheme: https, metrics: /stats, models_path: /l}
  - {name: b, address: 10.0.0.2, ports: [1, 2], engine: nim}
  - {name: c, address: '10.0.0.3:80', metrics: 'http://10.0.0.3:9/x'}
  - {name: d, address: '10.0.0.4:80', scheme: http}
"""
    pods = parse_pods(text, PageRules("https"))

    assert [(pod.scheme, pod.metrics_url, pod.models_url) for pod in pods] == [
        ("https", "https://10.0.0.1:80/stats", "https://10.0.0.1:80/l"),
        ("https", "https://10.0.0.2:1/v1/metrics", "https://10.0.0.2:1/v1/models"),
        ("https", "https://10.0.0.2:2/v1/metrics", "https://10.0.0.2:2/v1/models"),
        ("https", "http://10.0.0.3:9/x", "https://10.0.0.3:80/v1/models"),
        ("http", "http://10.0.0.4:80/metrics", "http://10.0.0.4:80/v1/models"),
    ]


def test_a_label_names_the_base_model_of_a_pod_that_lists_none() -> None:
    [pod] = parse_pods(entry(labels="{model.aibrix.ai/name: llama}"))

    assert (pod.base_model, pod.models) == ("llama", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one key 'pods'"),
        ("[]", "one key 'pods'"),
        ("pods: []\nmore: 1", "one key 'pods'"),
        ("pods:", "'pods' must be a list"),
        ("pods: {a: b}", "'pods' must be a list"),
        ("pods: [", "not YAML"),
        ("pods: [x]", "pod 1: must be a mapping"),
        ("[" * 10_000, "not YAML"),
        ("pods: [{address: '10.0.0.1:80'}]", "pod 1: name=None: must be non-empty, printable text"),
        (entry(name="7"), "name=7: must be non-empty, printable text"),
        (entry(name='"a\\n"'), "must be non-empty, printable text"),
        (entry(adress="x"), "unknown key 'adress'; did you mean 'address'"),
        (entry(zzz="x"), "unknown key 'zzz'; known are name, address"),
        ("pods: [{name: a}]", "pod 'a': address=None: must be ip:port"),
        (entry(address="vllm-0.svc:8000"), "a host name is not allowed"),
        (entry(address="10.0.0.1"), "must be ip:port"),
        (entry(address="10.0.0.1:0"), "must be ip:port"),
        (entry(address="10.0.0.1:65536"), "must be ip:port"),
        (entry(address="10.0.0.1:00050000000"), "must be ip:port"),
        (entry(address="10.0.0.1:99999999999"), "must be ip:port"),
        (entry(address="10.0.0.1:x"), "must be ip:port"),
        (entry(address="10.0.0.999:80"), "must be ip:port"),
        (entry(address="fd00::1:80"), "must be ip:port"),
        (entry(address="'[::g]:80'"), "must be ip:port"),
        (entry(metrics="metrics"), "metrics='metrics': must be an http or https URL"),
        (entry(metrics="http://x/" + "y" * 2048), "metrics='http:.*of at most 2048 characters"),
        (entry(metrics="ftp://x/"), "must be an http or https URL"),
        (entry(metrics="http://[x"), "must be an http or https URL"),
        (entry(metrics="http://x:port/"), "must be an http or https URL"),
        (entry(models="[]"), "models=.*: must be a list of different names"),
        (entry(models="base"), "must be a list of different names"),
        (entry(models="[a, a]"), "must be a list of different names"),
        (entry(models="[1]"), "must be a list of different names"),
        (entry(labels="x"), "labels='x': must be a mapping"),
        (entry(labels="{a: true}"), "labels: 'a': True: key and value must be strings"),
        (entry(labels="{a: {b: c}}"), "key and value must be strings"),
        (entry(labels="{1: a}"), "key and value must be strings"),
        (
            entry(labels="{cuda: 12.10}"),
            "quote true, false, and what looks like a date or a number",
        ),
        (entry(labels="{built: 2024-01-05}"), "quote true, false, and what looks like a date"),
        (entry(labels="{built: 2024-13-45}"), "line 4, column 21: '2024-13-45' is not a valid"),
        (entry(labels="{gpus: " + "9" * 5000 + "}"), "line 4, column 20: .* longer than 100"),
        (entry(labels="{gpus: !!int x}"), "line 4, column 20: 'x' is not a valid int"),
        (entry(labels="!!python/name:os.system"), "the tag !!python/name:os.system is not"),
        (entry(labels="{a: b, a: c}"), "line 4, column 20: duplicate key 'a'"),
        (entry(name="x" * 10_000, address="y" * 10_000), "pod 'x{20,60}.*address='y{20,40}"),
        (entry(**{"z" * 500: "x"}), "unknown key 'z{20,40}"),
        (entry(ready="maybe"), "ready='maybe': must be true or false"),
        (entry(engine="ollama"), "engine='ollama': must be one of vllm, sglang, ray, nim"),
        (
            entry(max_cpu_loras="0"),
            "max_cpu_loras=0: must be a number of adapters from 1 to 1000000",
        ),
        (entry(max_cpu_loras="true"), "max_cpu_loras=True: must be a number of adapters"),
        (
            entry(labels="{lora-router/max-cpu-loras: x}"),
            "label lora-router/max-cpu-loras='x': must",
        ),
        (entry(ports="[80]"), "with 'ports', must be an IP address without a port"),
        (entry(address="a.test", ports="[80]"), "must be an IP address without a port"),
        (entry(address="10.0.0.1", ports="80"), "ports=80: must be a list of up to 32 different"),
        (entry(address="10.0.0.1", ports="[]"), "must be a list of up to 32 different ports"),
        (entry(address="10.0.0.1", ports="[80, 80]"), "must be a list of up to 32 different"),
        (entry(address="10.0.0.1", ports="[true]"), "must be a list of up to 32 different"),
        (entry(address="10.0.0.1", ports="[65536]"), "from 1 to 65535"),
        (entry(address="10.0.0.1", ports="[1, 2]", metrics="http://x/"), "each of the 2 ports"),
        (entry(scheme="h2"), "scheme='h2': must be http or https"),
        (entry(metrics="'//x/ y'"), "metrics='//x/ y': must be an http or https URL"),
        (entry(models_path="models"), "models_path='models': must be a path that begins with"),
        (entry() + entry(address="10.0.0.2:80")[6:], "two pods have the name 'a'"),
        (entry() + entry(name="b")[6:], "two pods have the address '10.0.0.1:80'"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(PodsFileError, match=message):
        parse_pods(text)


@given(st.text(max_size=80) | st.text("pods:- {}[]\nname address10.", max_size=80))
def test_no_text_whatever_raises_anything_else(text: str) -> None:
    for wrapped in (text, f"pods: [{text}]", f"pods:\n  - name: {text}"):
        try:
            parse_pods(wrapped)
        except PodsFileError:
            continue


class Watched:
    """A file, and a fleet that follows it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fleet = Fleet()
        self.pods = PodsFile(path, self.fleet, interval=0.01)

    def names(self) -> list[str]:
        return sorted(state.pod.name for state in self.fleet)

    async def until(self, names: list[str]) -> None:
        await until(lambda: self.names() == names)

    async def until_wrong(self) -> None:
        await until(lambda: self.pods.last_error is not None)

    async def until_right(self) -> None:
        await until(lambda: self.pods.last_error is None)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    path = tmp_path / "pods.yaml"
    path.write_text(entry())
    return Watched(path)


async def test_nothing_that_stands_in_the_file_ends_the_watch(watched: Watched) -> None:
    await watched.pods.start()
    for bad in (
        entry(labels="{built: 2024-13-45}").encode(),
        entry(labels="{gpus: " + "9" * 5000 + "}").encode(),
        entry(labels="!!bool maybe").encode(),
        b"pods: &a [*a]",
        b"pods: [\xff]",
        b"pods: [\0]",
        b"[" * 100_000,
    ):
        watched.path.write_bytes(bad)
        await watched.until_wrong()
        assert watched.names() == ["a"]

        watched.path.write_text(entry())
        await watched.until_right()
    await watched.pods.stop()


async def test_whatever_takes_the_place_of_the_file_the_watch_goes_on(watched: Watched) -> None:
    await watched.pods.start()
    for make, remove in ((Path.mkdir, Path.rmdir), (os.mkfifo, Path.unlink)):
        watched.path.unlink()
        make(watched.path)
        await watched.until_wrong()
        assert "cannot be read: " in str(watched.pods.last_error)

        remove(watched.path)
        watched.path.write_text(entry())
        await watched.until_right()
    await watched.pods.stop()


async def test_a_fault_of_the_router_that_a_file_causes_is_an_error_of_that_file(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    watched.pods = PodsFile(
        watched.path, watched.fleet, interval=0.01, supervisor=Supervisor(counted.append)
    )
    await watched.pods.start()

    def broken(content: bytes, pages: PageRules) -> tuple[Pod, ...]:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(pods_file, "parse_pods", broken)
        watched.path.write_text(entry(name="b"))
        await watched.until_wrong()
        await asyncio.sleep(0.05)
    assert str(watched.pods.last_error).endswith("pods.yaml: cannot be read: ZeroDivisionError")
    assert counted == ["pods-file"]  # Once for each content, not once for each look.

    watched.path.write_text(entry(name="c"))
    await watched.until(["c"])
    await watched.pods.stop()


async def test_a_list_that_could_not_be_applied_is_applied_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_BACKOFF_SECONDS", 0.01)
    await watched.pods.start()
    update, failures = watched.fleet.update, [RuntimeError("a fault"), RuntimeError("a fault")]

    def sometimes(*changes: Any, **more: Any) -> None:
        if failures:
            raise failures.pop()
        update(*changes, **more)

    monkeypatch.setattr(watched.fleet, "update", sometimes)
    watched.path.write_text(entry(name="b"))

    await watched.until(["b"])
    await watched.pods.stop()


@pytest.mark.slow
async def test_a_large_list_is_read_in_a_thread_and_applied_in_pieces(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    pieces: list[tuple[int, int]] = []
    update = watched.fleet.update

    def parse(content: bytes, pages: PageRules) -> tuple[Pod, ...]:
        threads.append(threading.get_ident())
        return parse_pods(content, pages)

    def recorded(pods: Sequence[Pod], gone: Sequence[str] = ()) -> None:
        pieces.append((len(pods), len(gone)))
        update(pods, gone)

    monkeypatch.setattr(pods_file, "parse_pods", parse)
    monkeypatch.setattr(watched.fleet, "update", recorded)
    lines = [f"  - {{name: p{n}, address: '10.0.{n // 250}.{n % 250}:80'}}" for n in range(1000)]
    watched.path.write_text("pods:\n" + "\n".join(lines))

    await watched.pods.start()
    assert len(watched.fleet) == 1000
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
    assert pieces == [(200, 0)] * 5

    # A small change is applied at once, and names only what changed.
    watched.path.write_text("pods:\n" + "\n".join(lines[1:]))
    await until(lambda: len(watched.fleet) == 999)
    assert pieces[5:] == [(0, 1)]

    # New pods come before the old ones go: there are pods at every moment.
    watched.path.write_text("pods:\n" + "\n".join(lines).replace("name: p", "name: q"))
    await until(lambda: len(watched.fleet) == 1000 and watched.fleet.get("p1") is None)
    assert pieces[6:] == [(200, 0)] * 5 + [(0, 200)] * 4 + [(0, 199)]
    await watched.pods.stop()


def test_the_status_says_how_old_the_last_look_is(watched: Watched) -> None:
    now = [100.0]
    pods = PodsFile(watched.path, watched.fleet, clock=lambda: now[0])
    now[0] = 103.25

    assert pods.status() == {"discovery": "file", "pods_file_age_seconds": 3.2}


async def test_the_age_of_a_list_grows_while_the_file_is_invalid(watched: Watched) -> None:
    now = [100.0]
    pods = PodsFile(watched.path, watched.fleet, interval=0.01, clock=lambda: now[0])
    await pods.start()

    watched.path.write_text("pods: [")
    await until(lambda: pods.last_error is not None)
    now[0] = 190.0
    watched.path.write_text("pads: []")  # It is read again, and still invalid.
    await until(lambda: "one key 'pods'" in str(pods.last_error))
    assert pods.status()["pods_file_age_seconds"] == 90.0

    watched.path.write_text(entry(name="b"))
    await until(lambda: pods.last_error is None)
    assert pods.status() == {"discovery": "file", "pods_file_age_seconds": 0.0}
    await pods.stop()


async def test_an_edit_is_followed(watched: Watched) -> None:
    await watched.pods.start()
    assert watched.names() == ["a"]

    watched.path.write_text(entry(name="b"))
    await watched.until(["b"])

    await watched.pods.stop()
    watched.path.write_text(entry(name="c"))
    await asyncio.sleep(0.05)
    assert watched.names() == ["b"]


async def test_a_link_that_is_swapped_is_followed(watched: Watched, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(entry(name="b"))
    link = tmp_path / "link.yaml"
    link.symlink_to(watched.path)
    linked = Watched(link)
    await linked.pods.start()

    new = tmp_path / "new"
    new.symlink_to(other)
    os.replace(new, link)  # noqa: PTH105

    await linked.until(["b"])
    await linked.pods.stop()


@pytest.mark.parametrize("bad", ["pods: [", "gone", "\udcff", "too long"])
async def test_a_bad_edit_is_logged_once_and_the_last_good_list_stays(
    watched: Watched, bad: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.pods.start()
    if bad == "gone":
        watched.path.unlink()
    elif bad == "too long":
        monkeypatch.setattr("lora_router.discovery.watched_file.MAX_FILE_BYTES", 100)
        watched.path.write_text("#" * 200)
    else:
        watched.path.write_bytes(bad.encode(errors="surrogateescape"))

    await watched.until_wrong()
    await asyncio.sleep(0.05)

    assert watched.names() == ["a"]
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "the last valid list of 1 pod stays" in errors[0]

    watched.path.write_text(entry())
    await watched.until_right()
    await watched.pods.stop()


@pytest.mark.parametrize("content", [None, "pods: {}"])
async def test_a_bad_file_at_the_start_stops_the_start(
    watched: Watched, content: str | None
) -> None:
    watched.path.unlink() if content is None else watched.path.write_text(content)

    with pytest.raises(PodsFileError, match=str(watched.path)):
        await watched.pods.start()
    await watched.pods.stop()


def test_a_thread_that_computes_is_quiet_and_leaves_no_trace() -> None:
    def fail_quietly() -> None:
        with quiet_thread():
            assert sys.getswitchinterval() < 0.001
            assert not gc.isenabled()
            raise ZeroDivisionError

    interval = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        fail_quietly()

    assert sys.getswitchinterval() == interval
    assert gc.isenabled()


@pytest.mark.slow
async def test_a_long_list_is_read_quietly_and_replaced_completely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def parse(content: bytes, pages: PageRules) -> tuple[Pod, ...]:
        seen.append(gc.isenabled())
        return parse_pods(content, pages)

    monkeypatch.setattr(pods_file, "parse_pods", parse)
    path = tmp_path / "pods.yaml"

    def write(names: str) -> None:
        lines = [
            f"- {{name: {names}-{n}, address: '10.0.{n // 250}.{n % 250}:80', models: [m]}}\n"
            for n in range(3000)
        ]
        path.write_text("pods:\n" + "".join(lines))

    write("a")
    watched = Watched(path)
    await watched.pods.start()
    write("b")
    await watched.until(sorted(f"b-{n}" for n in range(3000)))
    await watched.pods.stop()

    assert seen == [False, False]
