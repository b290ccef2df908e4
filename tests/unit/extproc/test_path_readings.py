"""No reading of a path, by a server or by a proxy before it, opens what the router refuses."""

import re
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import compile_path

from lora_router.extproc.path_rules import PathRule, Treatment
from lora_router.extproc.path_table import RULES
from lora_router.extproc.paths import MAX_PATH_LENGTH, Paths

PREFIX = "/llm"
PATHS = Paths(prefixes=[PREFIX])

ROUTES = [(rule, compile_path(rule.path)[0]) for rule in RULES]
"""The rules as Starlette looks for them: ``^...$``, with ``match``."""
METRICS = re.compile("^/metrics(?P<path>.*)$")
"""How vLLM and SGLang mount their metrics."""
REFUSED = [rule.path for rule in RULES if rule.treatment is Treatment.REFUSED]


def refused(path: str, method: str = "POST", paths: Paths = PATHS) -> bool:
    rule = paths.find(method, path).rule
    return rule is not None and rule.treatment is Treatment.REFUSED


def served(read: str) -> list[PathRule]:
    """Return the rules whose path a server serves, for a path as it reads it."""
    found = [rule for rule, route in ROUTES if route.match(read)]
    return found or [rule for rule in RULES if rule.path == "/metrics" and METRICS.match(read)]


def read_by_h11(written: str) -> str:
    """Return the path as uvicorn reads it with h11."""
    return unquote(written.partition("?")[0])


def read_by_httptools(written: str) -> str:
    """Return the path as uvicorn reads it with httptools: the path of a URL."""
    without_host = re.sub(r"^[a-z]+://[^/?#]*", "", written)
    return unquote(re.split("[?#]", without_host)[0])


def normalized(written: str) -> str:
    """Return what a proxy forwards that decodes slashes, merges them, and resolves dot segments."""
    path, mark, query = written.partition("?")
    path = re.sub("%2f|%5c", "/", path, flags=re.IGNORECASE).replace("\\", "/")
    segments: list[str] = []
    for segment in re.sub("%2e", ".", path, flags=re.IGNORECASE).split("/"):
        if segment == "..":
            segments = segments[:-1]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments) + mark + query


def without_prefix(written: str) -> str:
    """Return what the printed Envoy forwards: it removes the prefix after it asked the router."""
    return re.sub(f"^{PREFIX}/+", "/", written)


def readings(written: str) -> Iterator[str]:
    """Yield the path as each kind of server reads it, behind each kind of proxy."""
    for forwarded in (written, without_prefix(written)):
        for sent in (forwarded, normalized(forwarded), without_prefix(normalized(forwarded))):
            yield read_by_h11(sent)
            yield read_by_httptools(sent)


JUNK = st.sampled_from(
    "%0a %0A %0d %00 %7f %c2%85 %0a/ / // %2f %2F %5c \\ . .. /. /./ /.. /x/.. %2e /%2e%2e/ ; "
    ";a=b # #x %23 ? %3f %25 %250a %252f %2573 %c0%af %c0%ae %ff %d9%a1 %e2%80%a8 %20 + x"
    f" X {PREFIX} http://a".split()
)


@st.composite
def written_paths(draw: st.DrawFn) -> str:
    """Return a path of the table, written in another way, with junk in it."""
    path = draw(st.sampled_from([rule.path for rule in RULES] + REFUSED))
    path = re.sub(r"\{[a-z:]+\}", lambda _: draw(st.sampled_from(["a", "a/b", "sleep"])), path)
    written = "".join(
        f"%{ord(each):02x}" if draw(st.integers(0, 9)) == 0 else each for each in path
    )
    places = ["begin", "end", "end", "segment", "anywhere"]
    for place in draw(st.lists(st.sampled_from(places), max_size=3)):
        if place == "begin":
            at = 0
        elif place == "end":
            at = len(written)
        elif place == "segment":
            at = draw(st.sampled_from([m.start() for m in re.finditer("/", written)] or [0]))
        else:
            at = draw(st.integers(0, len(written)))
        written = written[:at] + draw(JUNK) + written[at:]
    return written


@given(written_paths(), st.sampled_from(["POST", "GET", "PUT", "HEAD", "DELETE", ""]))
def test_a_path_that_any_server_reads_as_administrative_is_refused(
    written: str, method: str
) -> None:
    for read in readings(written):
        if any(rule.treatment is Treatment.REFUSED for rule in served(read)):
            assert refused(written, method), f"read as {read!r}"


@given(written_paths())
def test_no_method_opens_what_a_server_mounts(written: str) -> None:
    if any(METRICS.match(read) for read in readings(written)):
        assert refused(written, "OPTIONS")


@given(written_paths())
def test_a_path_that_a_server_knows_has_its_rule_or_is_refused(written: str) -> None:
    found = PATHS.find("POST", written).rule
    known = [rule.path for rule in served(read_by_h11(written))]

    if known:
        assert found is not None
        assert found.treatment is Treatment.REFUSED or found.path in known


@pytest.mark.parametrize("end", ["%0a", "%0A", "%0d%0a", "%00", "%7f", "%c2%85", "%0a?x=1", "#x"])
def test_nothing_that_follows_a_path_opens_it(end: str) -> None:
    allowed = Paths(admin_allowed=True)

    assert [path for path in REFUSED if not refused(path + end)] == []
    assert [path for path in REFUSED if not refused(path + end, paths=allowed)] == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions%0a",
        "/v1/models%0a",
        "/v1/responses/resp_1%0a",
        "/my/own%0a",
        "/v1/models/../../sleep",
        "/v1/models/%2e%2e/%2E%2E/sleep",
        "/sleep/.",
        "/sleep/x/..",
        "/v1\\load_lora_adapter",
        "/x/..%5csleep",
        "http://a/metrics",
        "sleep",
        "*",
        "/metrics/" + "x" * MAX_PATH_LENGTH,
        "/" * MAX_PATH_LENGTH + "/sleep",
    ],
)
def test_what_servers_and_proxies_read_in_different_ways_is_refused(path: str) -> None:
    assert refused(path)
    assert refused(path, "OPTIONS") or path == "*"


@pytest.mark.parametrize(
    "path", ["", "/my/a.b", "/my/.well-known", "/my/...", "/my/a%20b", "/my/caf%c3%a9", "/my/%ff"]
)
def test_what_all_read_in_the_same_way_is_not(path: str) -> None:
    assert PATHS.find("POST", path).rule is None


@pytest.mark.parametrize("path", ["/metrics/", "/metrics/x", "/metricsx", "//metrics/a/b"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_all_paths_that_a_server_mounts_its_metrics_at_are_refused(path: str, method: str) -> None:
    assert refused(path, method)
    assert refused(PREFIX + path, method)
    assert refused(PREFIX + PREFIX + path, method)


def test_the_settings_open_the_metrics() -> None:
    for paths in (
        Paths(admin_allowed=True),
        Paths([PathRule("/metrics", Treatment.PASSED)]),
    ):
        assert not refused("/metrics", "GET", paths)
        assert not refused("/metrics/x", "GET", paths)


def test_a_path_with_a_variable_is_refused_below_any_prefix() -> None:
    assert refused("/other/dumper/start")
    assert not refused("/other/dumper/")
    assert not refused("/other/dumper/a/b")
