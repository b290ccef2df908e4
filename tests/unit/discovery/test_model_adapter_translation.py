"""What a ModelAdapter declares, and what is said of one that declares nothing."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.adapters.declared import DeclaredAdapter, WantedPods
from lora_router.discovery.model_adapter_translation import Translation, to_declared
from lora_router.fleet.pod import Pod
from tests.unit.discovery.model_adapter_objects import ALLOWED, SPEC, model_adapter


def declared(
    spec: Mapping[str, object], annotations: Mapping[str, str] | None = None
) -> DeclaredAdapter:
    found = to_declared(model_adapter("sql", spec, annotations=annotations), ALLOWED)
    assert found.adapter is not None, found.problem
    return found.adapter


def problem(spec: Mapping[str, object], annotations: Mapping[str, str] | None = None) -> str:
    found = to_declared(model_adapter("sql", spec, annotations=annotations), ALLOWED)
    assert found.adapter is None
    return found.problem


def pod(name: str, **labels: str) -> Pod:
    return Pod(name, "10.0.0.1:8000", "http://m", "http://v", labels=labels)


def test_a_resource_declares_an_adapter_on_all_pods_that_match_in_its_namespace() -> None:
    adapter = declared(
        {
            "baseModel": "base",
            "artifactURL": "huggingface://org/sql",
            "podSelector": {
                "matchLabels": {"gpu": "h100"},
                "matchExpressions": [
                    {"key": "team", "operator": "In", "values": ["a", "b"]},
                    {"key": "old", "operator": "DoesNotExist"},
                ],
            },
        }
    )
    assert (adapter.name, adapter.base_model, adapter.source) == ("sql", "base", "org/sql")
    assert adapter.origin == "model-adapter ml/sql"
    assert (adapter.pods.everywhere, adapter.pods.copies) == (True, None)
    assert adapter.pods.admits(pod("ml/p", gpu="h100", team="a"))
    assert not adapter.pods.admits(pod("other/p", gpu="h100", team="a"))
    assert not adapter.pods.admits(pod("ml/p", gpu="h100", team="a", old=""))
    assert not adapter.pods.admits(pod("ml/p", gpu="h100"))


@pytest.mark.parametrize(
    ("replicas", "annotation", "everywhere", "copies"),
    [
        (None, None, True, None),
        (1, None, False, 1),
        (None, "3", False, 3),
        (1, "all", True, None),
        (1, "demand", False, None),
    ],
)
def test_replicas_and_an_annotation_say_on_how_many_pods(
    replicas: int | None, annotation: str | None, everywhere: bool, copies: int | None
) -> None:
    annotations = {} if annotation is None else {"lora-router/pods": annotation}
    adapter = declared({**SPEC, "replicas": replicas}, annotations)
    assert adapter.pods == WantedPods(everywhere, copies, None, "ml")


def test_annotations_say_what_the_resource_has_no_field_for() -> None:
    adapter = declared(
        SPEC,
        {
            "lora-router/version": "v2",
            "lora-router/share": "10",
            "lora-router/pinned": "true",
            "lora-router/aliases": "sql-old, query",
        },
    )
    assert (adapter.served_name, adapter.share, adapter.pinned) == ("sql@v2", 10, True)
    assert adapter.aliases == ("sql-old", "query")


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("huggingface://org/sql", "org/sql"),
        ("org/sql", "org/sql"),
        ("/models/sql", "/models/sql"),
        ("file:///models/sql", "/models/sql"),
        ("s3://lora/sql", "s3://lora/sql"),
    ],
)
def test_sources_become_what_servers_take(url: str, source: str) -> None:
    assert declared({**SPEC, "artifactURL": url}).source == source


def test_the_selector_may_say_the_base_model() -> None:
    labels = {"model.aibrix.ai/name": "llama"}
    spec = {"artifactURL": "org/a", "podSelector": {"matchLabels": labels}}
    assert declared(spec).base_model == "llama"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"baseModel": "sql"}, "metadata.name='sql': is the base model of the adapter"),
        ({"baseModel": None}, "spec.baseModel is missing: it must name the model"),
        ({"artifactURL": "huggingface://a"}, "spec.artifactURL='huggingface://a': must be hugg"),
        ({"artifactURL": "file://host/a"}, "must be file:///PATH, without a host"),
        ({"artifactURL": "/etc/passwd"}, "must begin with a prefix in adapter_sources: org, "),
        ({"artifactURL": "gcs://b/a"}, "allow gcs:// only if your servers load it"),
        (
            {"artifactURL": "org/../../etc"},
            "must be a path or URL of ASCII characters without '.' and '..'",
        ),
        ({"artifactURL": ""}, "spec.artifactURL='': must be a path or URL of 1 to"),
        ({"replicas": 0}, "spec.replicas=0: must be a number from 1 to 10000"),
        ({"replicas": -1}, "spec.replicas=-1: must be a number from 1 to 10000"),
        ({"replicas": "two"}, "spec: Expected `int | null`, got `str` - at `$.replicas`"),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Gt"}]}},
            "matchExpressions[0]: operator='Gt': must be one of In, NotIn, Exists, DoesNotExist",
        ),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "matchExpressions[0]: must have a key, and 1 to 64 values with In and NotIn only",
        ),
        (
            {"podSelector": {"matchLabels": {f"l{number}": "" for number in range(65)}}},
            "spec.podSelector: must have at most 64 requirements",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_what_is_allowed(
    change: Mapping[str, object], says: str
) -> None:
    assert says in problem({**SPEC, **change})


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        ("pods", "0", "annotation lora-router/pods='0': must be all, demand, or a number"),
        ("pods", "many", "must be all, demand, or a number from 1 to 10000"),
        ("pods", "0000000001", "must be all, demand, or a number from 1 to 10000"),
        ("pinned", "yes", "annotation lora-router/pinned='yes': must be true or false"),
        ("version", "a@b", "annotation lora-router/version='a@b': must be 1 to 256"),
        ("share", "101", "annotation lora-router/share='101': must be a whole number from 0"),
        ("share", "00001000", "must be a whole number from 0 to 100"),
        ("aliases", "a,a", "annotation lora-router/aliases='a,a': must be up to 16 different"),
        ("aliases", "sql", "must be up to 16 different names other than its own"),
    ],
)
def test_annotations_that_cannot_be_used_are_named(annotation: str, value: str, says: str) -> None:
    assert says in problem(SPEC, {f"lora-router/{annotation}": value})


def test_what_is_not_used_is_noted() -> None:
    found = to_declared(
        model_adapter("sql", {**SPEC, "credentialsSecretRef": {"name": "s3"}}), ALLOWED
    )
    assert found.note.startswith("spec.credentialsSecretRef is not used")


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.mark.slow
@given(
    spec=st.dictionaries(
        st.sampled_from(
            ["baseModel", "artifactURL", "podSelector", "replicas", "credentialsSecretRef"]
        ),
        documents,
    ),
    annotations=st.dictionaries(
        st.sampled_from(["pods", "pinned", "version", "share", "aliases"]), st.text(max_size=20)
    ),
)
def test_any_object_declares_an_adapter_or_says_why_not(
    spec: dict[str, object], annotations: dict[str, str]
) -> None:
    named = {f"lora-router/{key}": value for key, value in annotations.items()}
    found = to_declared(model_adapter("sql", spec, annotations=named), ALLOWED)
    assert isinstance(found, Translation)
    assert (found.adapter is None) == bool(found.problem)
    assert len(found.problem) < 1000
    if found.adapter is not None:
        assert found.adapter.source.startswith(("org/", "/models", "s3://lora"))
