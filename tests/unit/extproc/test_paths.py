"""What a path means: the table, and how paths are read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.path_rules import Api, ModelIn, Place, Treatment
from lora_router.extproc.path_table import RULES, rules_of_settings
from lora_router.extproc.paths import MAX_PATH_LENGTH, Paths
from tests.scripts import load_script

CHAT = "/v1/chat/completions"
ROOT = Path(__file__).parents[3]


def treatment(path: str, method: str = "POST", paths: Paths | None = None) -> Treatment | None:
    place = (paths or Paths()).find(method, path)
    return None if place.rule is None else place.rule.treatment


def test_every_fixed_path_of_the_table_is_found() -> None:
    fixed = [rule for rule in RULES if "{" not in rule.path]
    paths = Paths()
    asked = [(next(iter(rule.methods), "POST"), rule.path) for rule in fixed]

    assert fixed
    assert [each for each in asked if paths.find(*each).rule is None] == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CHAT, Treatment.ROUTED),
        ("/v1/messages/count_tokens", Treatment.ROUTED),
        ("/invocations", Treatment.ROUTED),
        ("/v1/files", Treatment.PASSED),
        ("/v1/files/file-1/content", Treatment.STICKY),
        ("/v1/responses/resp_1/cancel", Treatment.STICKY),
        ("/v1/load_lora_adapter", Treatment.REFUSED),
        ("/metrics", Treatment.REFUSED),
        ("/dumper/anything", Treatment.REFUSED),
        ("/upload", None),
        ("/V1/chat/completions", None),
        ("", None),
    ],
)
def test_the_table_says_what_is_done(path: str, expected: Treatment | None) -> None:
    assert treatment(path) is expected


@pytest.mark.parametrize(
    "path",
    [
        f"{CHAT}/",
        f"{CHAT}?api-version=2024",
        "/v1/chat%2Fcompletions",
        "/v1/%63hat/completions",
        "//v1///chat/completions",
        f"/llm{CHAT}",
        f"/llm/eu{CHAT}/?a=/v1/files",
    ],
)
def test_a_path_is_read_as_the_server_reads_it(path: str) -> None:
    place = Paths(prefixes=["/llm", "/llm/eu/"]).find("POST", path)

    assert place.path == CHAT
    assert place.rule is not None
    assert place.rule.treatment is Treatment.ROUTED


def test_a_prefix_is_a_whole_segment() -> None:
    assert treatment("/llmv1/files", paths=Paths(prefixes=["/llm"])) is None


def test_the_method_decides_where_rules_differ() -> None:
    assert treatment("/v1/models", "GET") is Treatment.ANSWERED
    assert treatment("/v1/models", "HEAD") is Treatment.ANSWERED
    assert treatment("/v1/models", "DELETE") is Treatment.PASSED
    assert treatment("/v1/responses", "POST") is Treatment.ROUTED
    assert treatment("/v1/responses", "GET") is Treatment.PASSED


def test_a_gateway_that_tells_no_method_is_taken_to_post() -> None:
    assert treatment(CHAT, "") is Treatment.ROUTED
    assert treatment("/v1/models", "") is Treatment.PASSED


def test_a_question_what_is_allowed_has_no_rule() -> None:
    assert treatment("/v1/load_lora_adapter", "OPTIONS") is None


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/openai/deployments/sql-lora/chat/completions?api-version=1", "sql-lora"),
        ("/openai/deployments/a%20b/embeddings", "a b"),
        ("/v1/realtime?model=sql-lora", "sql-lora"),
        ("/v1/realtime?x=1&model=a%2Fb&model=c", "c"),
        ("/v1/realtime", ""),
        ("/v1/realtime?" + "a=1&" * 100 + "model=a", ""),
    ],
)
def test_a_path_or_a_query_can_name_the_model(path: str, model: str) -> None:
    assert Paths().find("POST", path).model == model


def test_the_name_of_a_model_may_contain_slashes() -> None:
    place = Paths().find("GET", "/v1/models/meta-llama%2FLlama-3/x")

    assert place.model == "meta-llama/Llama-3/x"


def test_a_path_with_an_id_names_it() -> None:
    assert Paths().find("GET", "/v1/responses/resp_1/input_items?limit=1").resource == "resp_1"
    assert Paths().find("GET", "/v1/responses//cancel").rule is not None
    assert Paths().find("DELETE", "/v1/conversations/c/items/i").resource == "c"


class TestAdministrativePaths:
    def test_below_a_prefix_that_nobody_configured_they_are_refused_too(self) -> None:
        assert treatment("/llm/v1/unload_lora_adapter") is Treatment.REFUSED
        assert treatment("/x/..%2fsleep") is Treatment.REFUSED

    def test_what_only_shows_something_is_refused_only_as_it_is(self) -> None:
        assert treatment("/metrics") is Treatment.REFUSED
        assert treatment("/my/docs") is None

    def test_allowed_loads_and_unloads_go_to_every_pod(self) -> None:
        paths = Paths(admin_allowed=True)

        for path in ("/v1/load_lora_adapter", "/unload_lora_adapter", "/llm/load_lora_adapter"):
            assert treatment(path, paths=paths) is Treatment.EVERY_POD

    def test_allowed_the_others_go_to_any_pod_even_if_unknown_paths_are_refused(self) -> None:
        paths = Paths(admin_allowed=True)

        assert treatment("/sleep", paths=paths) is Treatment.PASSED
        assert treatment("/metrics", "GET", paths=paths) is Treatment.PASSED
        assert treatment("/dumper/any", paths=paths) is Treatment.PASSED
        assert treatment("/llm/sleep", paths=paths) is None


class TestSettings:
    PATHS = Paths(
        rules_of_settings(
            {"/my/generate": "routed", "/health": "refused", "/sleep": "passed"}.items()
        )
    )

    def test_further_paths_are_known(self) -> None:
        assert treatment("/my/generate", paths=self.PATHS) is Treatment.ROUTED

    def test_they_come_before_the_table(self) -> None:
        assert treatment("/health", "GET", paths=self.PATHS) is Treatment.REFUSED
        assert treatment("/sleep", paths=self.PATHS) is Treatment.PASSED

    def test_a_refused_path_stays_refused_where_administrative_paths_are_allowed(self) -> None:
        paths = Paths(rules_of_settings([("/health", "refused")]), admin_allowed=True)

        assert treatment("/health", "GET", paths=paths) is Treatment.REFUSED

    def test_that_holds_for_an_administrative_path_too(self) -> None:
        paths = Paths(rules_of_settings([("/sleep", "refused")]), admin_allowed=True)

        assert treatment("/sleep", paths=paths) is Treatment.REFUSED


def test_anthropics_paths_have_anthropics_errors() -> None:
    rule = Paths().find("POST", "/v1/messages").rule

    assert rule is not None
    assert rule.api is Api.ANTHROPIC


def test_a_usual_path_costs_no_new_object() -> None:
    paths = Paths()

    assert paths.find("POST", CHAT) is paths.find("POST", CHAT)


def test_a_very_long_path_is_refused() -> None:
    assert treatment(CHAT + "/" * MAX_PATH_LENGTH) is Treatment.REFUSED


@given(st.text(), st.sampled_from(["GET", "POST", "OPTIONS", "", "BREW"]))
def test_any_path_has_a_place(path: str, method: str) -> None:
    place = Paths(prefixes=["/llm"]).find(method, path)

    assert isinstance(place, Place)
    assert place.rule is None or place.rule.model_in in ModelIn


def test_the_documentation_has_the_table() -> None:
    page = (ROOT / "docs/paths.md").read_text()

    assert load_script(ROOT / "docs/write_paths.py").with_table(page) == page, "run `make paths`"
