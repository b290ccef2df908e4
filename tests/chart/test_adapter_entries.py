"""Helm refuses the adapters that the router would refuse, and takes all others as they are."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.adapters.sources import AllowedSources, SourceError
from lora_router.discovery.adapters_list import AdaptersFileError, AdaptersList, parse_adapters
from tests.chart.rendering import helm, one, render

Values = dict[str, Any]

ADAPTER = {"name": "sql", "base_model": "llama", "source": "s3://lora/sql"}
TEMPLATE = {"base_model": "llama", "names": "t-*", "source": "s3://lora/{name}"}
LORA = ["s3://lora"]

LONGEST_PREFIX = "a." * 126 + "a"
GOOD: list[Values] = [
    {"name": "n" * 256},
    {"name": "größe/v1.5+x"},
    {"name": "名"},
    {"name": "2026-11-28"},
    {"base_model": "meta llama/3"},
    {"source": "s3://lora/a b?c#d"},
    {"source": "/models/../x"},
    {"source": "a" * 2048},
    {"source": "s3://lora/<&>\"'\\"},
    {"pods": None},
    {"pods": "all"},
    {"pods": 1},
    {"pods": 10_000},
    {"pods": {}},
    {"pods": {"copies": "all"}},
    {"pods": {"copies": None, "selector": None}},
    {"pods": {"copies": 2, "selector": "gpu in (h100, h200),!old,zone!=,example.test/n>-5"}},
    {"pods": {"selector": "  a notin (,x) , in=in"}},
    {"pods": {"selector": LONGEST_PREFIX + "/a"}},
    {"pinned": True},
    {"version": ""},
    {"version": 20261128},
    {"version": -1},
    {"version": "1.10"},
    {"version": "2026-11-28T10:00:00"},
    {"version": "1e3"},
    {"version": "="},
    {"share": 0},
    {"share": 100},
    {"aliases": []},
    {"aliases": [f"alias-{number}" for number in range(16)]},
]
"""Changes of an adapter that is accepted."""

GOOD_TEMPLATES: list[Values] = [
    {"names": ["tenant-*", "*/lora-*"]},
    {"names": "*"},
    {"names": "a".join("*" * 8)},
    {"names": "a.b/*~+=:-_"},
    {"source": "s3://lora/{name}/x/{name}"},
    {"source": "S3://LORA/x.{name}"},
    {"pods": {"selector": "a=b"}},
]

BAD: list[tuple[Values, str]] = [
    ({"name": None}, "/name': got null, want string"),
    ({"name": ""}, "/name': minLength: got 0, want 1"),
    ({"name": 7}, "/name': got number, want string"),
    ({"name": "a b"}, "/name': 'a b' does not match pattern"),
    ({"name": "a@b"}, "/name': 'a@b' does not match pattern"),
    ({"name": "a,b"}, "/name': 'a,b' does not match pattern"),
    ({"name": "a\n"}, "/name': 'a\\n' does not match pattern"),
    ({"name": "a\u00adb"}, "/name': 'a\\u00adb' does not match pattern"),
    ({"name": "n" * 257}, "/name': maxLength: got 257, want 256"),
    ({"name": "llama"}, 'adapters.list: adapter "llama": "llama" is a base model'),
    ({"base_model": ""}, "/base_model': minLength"),
    ({"base_model": "a\tb"}, "/base_model': 'a\\tb' does not match pattern"),
    ({"base_model": "m" * 513}, "/base_model': maxLength: got 513, want 512"),
    ({"source": 7}, "/source': got number, want string"),
    ({"source": "  "}, "/source': '  ' does not match pattern"),
    ({"source": "a\nb"}, "/source': 'a\\nb' does not match pattern"),
    ({"source": "a" * 2049}, "/source': maxLength"),
    ({"pods": "al"}, "/pods': 'al' does not match pattern '^all$'"),
    ({"pods": 0}, "/pods': minimum: got 0, want 1"),
    ({"pods": -1}, "/pods': minimum: got -1, want 1"),
    ({"pods": 1.5}, "/pods': got number, want null or integer"),
    ({"pods": 10_001}, "/pods': maximum: got 10,001, want 10,000"),
    ({"pods": True}, "/pods': got boolean"),
    ({"pods": ["all"]}, "/pods': got array"),
    ({"pods": {"select": "a"}}, "/pods': additional properties 'select' not allowed"),
    ({"pods": {"copies": 0}}, "/pods/copies': minimum"),
    ({"pods": {"copies": "some"}}, "/pods/copies': 'some' does not match pattern"),
    ({"pods": {"selector": 1}}, "/pods/selector': got number"),
    ({"pods": {"selector": "a" + " " * 4096}}, "/pods/selector': maxLength"),
    (
        {"pods": {"selector": "gpu in h100"}},
        'adapters.list: adapter "sql": pods.selector="gpu in h100": must be a Kubernetes label',
    ),
    ({"pods": {"selector": "a,"}}, 'pods.selector="a,": must be'),
    ({"pods": {"selector": "a=b c"}}, 'pods.selector="a=b c": must be'),
    ({"pods": {"selector": "a>b"}}, 'pods.selector="a>b": must be'),
    ({"pods": {"selector": f"a{LONGEST_PREFIX}/a"}}, "must be a Kubernetes label selector"),
    ({"pinned": "yes"}, "/pinned': got string, want boolean"),
    ({"pinned": None}, "/pinned': got null"),
    ({"version": 1.5}, "/version': got number, want integer or string"),
    ({"version": None}, "/version': got null"),
    ({"version": "a@b"}, "/version': 'a@b' does not match pattern"),
    ({"share": 200}, "/share': maximum: got 200, want 100"),
    ({"share": -1}, "/share': minimum"),
    ({"share": "10"}, "/share': got string, want integer"),
    ({"aliases": "x"}, "/aliases': got string, want array"),
    ({"aliases": ["x", "x"]}, "/aliases': items at 0 and 1 are equal"),
    ({"aliases": ["a b"]}, "/aliases/0': 'a b' does not match pattern"),
    ({"aliases": [str(number) for number in range(17)]}, "/aliases': maxItems: got 17, want 16"),
    ({"aliases": ["sql"]}, 'adapters.list: adapter "sql": its name is declared twice'),
    ({"aliases": ["x", "llama"]}, 'adapters.list: adapter "sql": "llama" is a base model'),
    ({"foo": 1}, "additional properties 'foo' not allowed"),
]
"""Changes of an adapter that is refused, and what Helm says."""

BAD_TEMPLATES: list[tuple[Values, str]] = [
    ({"names": "tenant"}, "/names': 'tenant' does not match pattern"),
    ({"names": "a**"}, "/names': 'a**' does not match pattern"),
    ({"names": "a".join("*" * 9)}, "/names': '*a*a*a*a*a*a*a*a*' does not match pattern"),
    ({"names": "../*"}, "/names': '../*' does not match pattern"),
    ({"names": "a//*"}, "/names': 'a//*' does not match pattern"),
    ({"names": "*" + "a" * 256}, "/names': maxLength"),
    ({"names": []}, "/names': minItems: got 0, want 1"),
    ({"names": ["a*"] * 17}, "/names': maxItems: got 17, want 16"),
    ({"names": ["a*", 1]}, "/names/1': got number, want string"),
    ({"source": "s3://lora/x"}, "/source': 's3://lora/x' does not match pattern"),
    ({"source": "s3://lora/{nam}"}, "/source': 's3://lora/{nam}' does not match pattern"),
    ({"source": "s3://lora/{{name}}"}, "/source': 's3://lora/{{name}}' does not match pattern"),
    ({"source": "s3://{name}/x"}, "/source': 's3://{name}/x' does not match pattern"),
    (
        {"source": "s3://lora/../{name}"},
        'adapters.templates: template 1: source="s3://lora/../{name}": must be a path or URL of ',
    ),
    (
        {"source": "s3://lor/{name}"},
        'template 1: source="s3://lor/{name}": must begin with a prefix in adapters.sources: s3://lora',
    ),
    ({"pods": {"selector": "!"}}, 'adapters.templates: template 1: pods.selector="!": must be'),
    ({"name": "x"}, "additional properties 'name' not allowed"),
    ({"pinned": True}, "additional properties 'pinned' not allowed"),
]

PREFIXES = [
    "/",
    "/srv",
    "/srv/",
    "srv",
    "s3://",
    "s3://lora",
    "s3://lora/",
    "s3://lora/team",
    "HTTPS://Models.Test:443/a/...",
    "http://models.test:443",
    "http://models.test:80",
    "file:///srv",
    "file://",
]
SOURCES = [
    *PREFIXES,
    "/srv/a",
    "/srv2",
    "srv/a@b",
    "s3://lora/team-b",
    "s3://lora/team/a/",
    "s3://lora2/team",
    "S3://LORA/team",
    "s3://lora/TEAM",
    "https://models.test/a/.../b",
    "https://models.test/a",
    "http://models.test/x",
    "http://models.test:8080/x",
    "file:///srv/x",
    "file://host/srv",
    "http://:80/a",
]
OUTSIDE = [
    ("/srv", "/srv2"),
    ("/srv", "srv"),
    ("/", "srv"),
    ("srv", "/srv"),
    ("s3://lora", "s3://lora2/team"),
    ("s3://lora", "s3://"),
    ("s3://lora/team", "s3://lora/team-b"),
    ("s3://lora/team", "s3://lora/TEAM"),
    ("http://models.test", "https://models.test/a"),
    ("http://models.test", "http://models.test:8080/a"),
    ("http://models.test:443", "http://models.test/a"),
    ("https://models.test:443/a", "https://models.test/b"),
    ("file:///srv", "file://host/srv"),
]
NO_SOURCES = [
    *("../x", "/srv/../x", "srv/.", "//srv", "/srv//a", "s3://lora//", "s3:///a", "s3://me@lora/a"),
    *("a b", "s3://lora/%2e%2e", "/a?b", "/a#b", "a\\b", "größe"),
]


def parsed(values: Values) -> AdaptersList:
    """Return what the router makes of the chart's values of adapters.

    Raises:
        AdaptersFileError: It refuses the adapters or the templates.
        SourceError: It refuses the sources.
    """
    file = {"adapters": values.get("list", []), "templates": values.get("templates", [])}
    allowed = AllowedSources(values.get("sources", []))
    return parse_adapters(json.dumps(file, ensure_ascii=False), allowed)


def rendered(values: Values) -> AdaptersList:
    """Return what the router makes of the file that Helm renders.

    Raises:
        helm.HelmError: Helm refuses the values.
    """
    file = one(render({"adapters": values}), "ConfigMap", "-adapters")["data"]["adapters.yaml"]
    return parse_adapters(file, AllowedSources(values.get("sources", [])))


def agreed(values: Values) -> bool:
    """Return whether both accept the values; an assertion fails if they do not agree."""
    try:
        by_router: AdaptersList | None = parsed(values)
    except (AdaptersFileError, SourceError):
        by_router = None
    try:
        by_helm: AdaptersList | None = rendered(values)
    except helm.HelmError:
        by_helm = None
    assert by_helm == by_router, values
    return by_router is not None


def test_what_the_router_accepts_helm_takes_as_it_is() -> None:
    adapters = [
        {**ADAPTER, "name": f"sql-{number}", **changes} for number, changes in enumerate(GOOD)
    ]
    assert agreed({"list": adapters})
    templates = [{**TEMPLATE, **changes} for changes in GOOD_TEMPLATES]
    assert agreed({"list": [ADAPTER], "templates": templates, "sources": LORA})


@pytest.mark.parametrize(("changes", "complaint"), BAD)
def test_an_adapter_that_the_router_refuses_is_refused(changes: Values, complaint: str) -> None:
    values = {"list": [{**ADAPTER, **changes}]}
    with pytest.raises(AdaptersFileError):
        parsed(values)
    with pytest.raises(helm.HelmError) as refused:
        rendered(values)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(("changes", "complaint"), BAD_TEMPLATES)
def test_a_template_that_the_router_refuses_is_refused(changes: Values, complaint: str) -> None:
    values = {"templates": [{**TEMPLATE, **changes}], "sources": LORA}
    with pytest.raises(AdaptersFileError):
        parsed(values)
    with pytest.raises(helm.HelmError) as refused:
        rendered(values)
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"list": [{}]}, "/list/0': missing properties 'name', 'base_model', 'source'"),
        ({"list": [None]}, "/list/0': got null, want object"),
        ({"list": ["sql"]}, "/list/0': got string, want object"),
        ({"list": [ADAPTER, ADAPTER]}, 'adapter "sql": its name is declared twice'),
        (
            {"list": [ADAPTER, {**ADAPTER, "name": "chat", "aliases": ["sql"]}]},
            'adapters.list: adapter "chat": the name "sql" is that of the adapter "sql" too',
        ),
        (
            {"list": [{**ADAPTER, "aliases": ["chat"]}, {**ADAPTER, "name": "chat"}]},
            'adapters.list: adapter "chat": the name "chat" is that of the adapter "sql" too',
        ),
        (
            {"list": [ADAPTER, {**ADAPTER, "name": "chat", "base_model": "sql"}]},
            'adapters.list: adapter "sql": "sql" is a base model',
        ),
        (
            {"list": [ADAPTER], "sources": ["s3://other", "/srv"]},
            'adapter "sql": source="s3://lora/sql": must begin with a prefix in adapters.sources: '
            "s3://other, /srv",
        ),
        (
            {"list": [{**ADAPTER, "source": "s3://lora/a b"}], "sources": LORA},
            'source="s3://lora/a b": must be a path or URL of ASCII characters without',
        ),
        ({"templates": [TEMPLATE]}, "adapters.templates: need adapters.sources"),
        ({"templates": [{}], "sources": LORA}, "/templates/0': missing properties"),
        ({"templates": [TEMPLATE] * 101, "sources": LORA}, "/templates': maxItems"),
        ({"list": [ADAPTER], "sources": ["../x"]}, 'adapters.sources: "../x": must be a path or'),
        ({"list": [ADAPTER], "sources": [""]}, "/sources/0': minLength"),
    ],
)
def test_entries_that_the_router_refuses_together_are_refused(
    values: Values, complaint: str
) -> None:
    with pytest.raises((AdaptersFileError, SourceError)):
        parsed(values)
    with pytest.raises(helm.HelmError) as refused:
        rendered(values)
    assert complaint in str(refused.value)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_source_that_begins_with_a_prefix_is_accepted(prefix: str) -> None:
    allowed = AllowedSources([prefix])
    inside = [each for each in SOURCES if _allows(allowed, each)]
    assert agreed({"list": _from(inside), "sources": [prefix]})


@pytest.mark.parametrize(("prefix", "source"), OUTSIDE)
def test_a_source_outside_is_refused(prefix: str, source: str) -> None:
    assert not agreed({"list": _from([source]), "sources": [prefix]})


def _from(sources: list[str]) -> list[Values]:
    return [{**ADAPTER, "name": f"a{at}", "source": source} for at, source in enumerate(sources)]


def _allows(allowed: AllowedSources, source: str) -> bool:
    try:
        allowed.check(source, "file")
    except SourceError:
        return False
    return True


@pytest.mark.parametrize("text", NO_SOURCES)
def test_what_is_no_prefix_is_refused_as_a_prefix_and_below_one(text: str) -> None:
    assert not agreed({"list": [ADAPTER], "sources": ["s3://lora", text]})
    assert not agreed({"list": _from([text]), "sources": ["/", "s3://", "srv", "a"]})


DIFFERENCES: list[tuple[Values, str, str]] = [
    ({"pods": 2.0}, "Helm", "Helm reads 2.0 as 2, so the router gets 2"),
    ({"version": 2.0}, "Helm", "Helm reads 2.0 as 2, so the router gets 2"),
    ({"version": 2**53}, "router", "Helm does not read larger numbers exactly: quote them"),
]
"""Changes of an adapter, who alone accepts it, and why it cannot be otherwise.

One more is not tested, because it depends on the version of Helm: characters that its Unicode
tables or Python's do not know yet.
"""


@pytest.mark.parametrize(("changes", "accepted_by", "why"), DIFFERENCES)
def test_what_cannot_be_told_in_a_schema(changes: Values, accepted_by: str, why: str) -> None:
    values = {"list": [{**ADAPTER, **changes}]}
    refusals: dict[str, Any] = {
        "router": (rendered, helm.HelmError),
        "Helm": (parsed, AdaptersFileError),
    }
    refuse, error = refusals[accepted_by]
    with pytest.raises(error):
        refuse(values)
    if accepted_by == "router":
        parsed(values)
    else:
        render({"adapters": values})


def test_of_a_templates_source_helm_counts_the_braces_too() -> None:
    """JSON Schema counts the characters as they are written; the router, with a name inside."""
    longest = "s3://lora/{name}/".ljust(2048, "a")
    assert agreed({"templates": [{**TEMPLATE, "source": longest}], "sources": LORA})
    longer: Values = {"templates": [{**TEMPLATE, "source": longest + "a"}], "sources": LORA}
    parsed(longer)
    with pytest.raises(helm.HelmError, match="maxLength"):
        rendered(longer)


NAMES = st.sampled_from([*"abcdefgh", "a.b", "a", "a*b"]) | st.text("ab1.*/@, {}", max_size=6)
PLACES = st.sampled_from(["/a", "/a/b", "s3://a", "s3://a/b", "S3://A/b/", "HTTP://a:80/b"])
PREFIXES_ANYWHERE = st.sampled_from(["/", "s3://", "http://a", "/a", "s3://a"]) | PLACES
SOME_SOURCES = PLACES | st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "/", "s3://", "file://", "HTTP://", "http://a:80"]),
    NAMES | st.sampled_from(["a/b", "A/b", "b/{name}", "../a"]),
    st.sampled_from(["", "/", "/x", "/{name}"]),
)
SELECTORS = st.sampled_from(["a", "a=b,!c", "b/c in (a, d)", "a>5"]) | st.lists(
    st.sampled_from(["a", "b/c", "in", "notin", " ", ",", "(", ")", "=", "!=", "!", ">", "5"]),
    max_size=8,
).map("".join)
PODS = st.sampled_from([None, "all", 1, 10_000, 0, 10_001, "some", 1.5]) | st.fixed_dictionaries(
    {}, optional={"selector": SELECTORS, "copies": st.sampled_from([1, "all", None, 0])}
)
ADAPTERS = st.fixed_dictionaries(
    {"name": NAMES, "base_model": st.sampled_from(["llama", "h", ""]), "source": SOME_SOURCES},
    optional={
        "pods": PODS,
        "pinned": st.sampled_from([True, False, None]),
        "version": NAMES | st.integers(0, 10**9) | st.none(),
        "share": st.integers(0, 101),
        "aliases": st.lists(NAMES, max_size=2),
    },
)
TEMPLATES = st.fixed_dictionaries(
    {
        "base_model": st.just("llama"),
        "names": st.sampled_from(["a*", "*/b*"]) | NAMES | st.lists(NAMES, max_size=2),
        "source": PLACES.map("{}/{{name}}".format) | SOME_SOURCES,
    },
    optional={"pods": PODS},
)


@pytest.mark.slow
@given(
    st.lists(ADAPTERS, min_size=1, max_size=2),
    st.lists(TEMPLATES, max_size=1),
    st.lists(PREFIXES_ANYWHERE | SOME_SOURCES, max_size=3),
)
def test_helm_and_the_router_agree(
    adapters: list[Values], templates: list[Values], sources: list[str]
) -> None:
    agreed({"list": adapters, "templates": templates, "sources": sources})
