"""The documents of ``/v1/models``, as clients of OpenAI and Anthropic read them."""

import json
from typing import Any
from unittest.mock import patch

import pytest

from lora_router.extproc import model_documents
from lora_router.extproc.model_documents import (
    WHOLE,
    PageQuery,
    QueryError,
    anthropic_model,
    anthropic_page,
    openai_list_in_steps,
    openai_model,
    openai_page,
    read_page_query,
)
from lora_router.fleet.model_list import ModelList

ABC = ModelList(["a", "b", "c"], ["base", None, "base"])


def openai_list(listed: ModelList) -> Any:
    steps = openai_list_in_steps(listed)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return json.loads(end.value)


def ids(document: bytes) -> list[str]:
    return [model["id"] for model in json.loads(document)["data"]]


class TestOpenAi:
    def test_a_model_has_the_fields_that_clients_require(self) -> None:
        assert json.loads(openai_model("team/sql", "base")) == {
            "id": "team/sql",
            "object": "model",
            "created": 0,
            "owned_by": "lora-router",
            "parent": "base",
        }

    def test_the_list_contains_all_models(self) -> None:
        document = openai_list(ABC)

        assert document["object"] == "list"
        assert [(each["id"], each["parent"]) for each in document["data"]] == [
            ("a", "base"),
            ("b", None),
            ("c", "base"),
        ]

    def test_an_empty_list_is_a_list(self) -> None:
        assert openai_list(ModelList([], [])) == {"object": "list", "data": []}

    def test_a_list_that_is_too_long_is_cut_and_says_so(self) -> None:
        names = [f"m-{number:05}" for number in range(10_000)]
        listed = ModelList(names, [None] * len(names))

        with patch.object(model_documents, "MAX_DOCUMENT_BYTES", 500_000):
            document = openai_list(listed)

        got = [model["id"] for model in document["data"]]
        assert document["has_more"]
        assert got == names[: len(got)]
        assert (document["first_id"], document["last_id"]) == (got[0], got[-1])
        assert ids(openai_page(listed, PageQuery(after=got[-1])))[0] == names[len(got)]

    def test_a_page_continues_after_the_last_one(self) -> None:
        page = json.loads(openai_page(ABC, PageQuery(limit=1, after="a")))

        assert [model["id"] for model in page["data"]] == ["b"]
        assert page["has_more"]
        assert (page["first_id"], page["last_id"]) == ("b", "b")


class TestAnthropic:
    def test_a_model_has_the_fields_that_clients_require(self) -> None:
        assert json.loads(anthropic_model("sql")) == {
            "type": "model",
            "id": "sql",
            "display_name": "sql",
            "created_at": "1970-01-01T00:00:00Z",
        }

    def test_a_page_has_twenty_models_unless_the_client_sets_a_limit(self) -> None:
        names = [f"{number:03}" for number in range(50)]
        listed = ModelList(names, [None] * 50)

        usual = json.loads(anthropic_page(listed, WHOLE))
        all_of_them = json.loads(anthropic_page(listed, PageQuery(limit=1000)))

        assert len(usual["data"]) == 20
        assert usual["has_more"]
        assert (usual["first_id"], usual["last_id"]) == ("000", "019")
        assert len(all_of_them["data"]) == 50
        assert not all_of_them["has_more"]

    def test_pages_go_forwards_and_backwards(self) -> None:
        assert ids(anthropic_page(ABC, PageQuery(limit=2, after="a"))) == ["b", "c"]
        assert ids(anthropic_page(ABC, PageQuery(limit=1, before="c"))) == ["b"]
        assert json.loads(anthropic_page(ABC, PageQuery(limit=1, before="c")))["has_more"]
        assert not json.loads(anthropic_page(ABC, PageQuery(limit=2, before="c")))["has_more"]

    def test_a_page_that_begins_at_a_model_that_left_is_still_a_page(self) -> None:
        assert ids(anthropic_page(ABC, PageQuery(after="aa"))) == ["b", "c"]

    def test_an_empty_page_has_no_ids(self) -> None:
        page = json.loads(anthropic_page(ABC, PageQuery(after="z")))

        assert page == {"data": [], "first_id": None, "last_id": None, "has_more": False}


class TestQueries:
    def test_each_api_has_its_own_names(self) -> None:
        query = "limit=5&after_id=x&after=y"

        assert read_page_query(query, anthropic=True) == PageQuery(5, "x")
        assert read_page_query(query, anthropic=False) == PageQuery(5, "y")

    @pytest.mark.parametrize("query", ["", "foo=bar", "beta=true"])
    def test_other_parameters_are_ignored(self, query: str) -> None:
        assert read_page_query(query, anthropic=True).is_whole

    @pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "1e3", "99999999999", "٣"])
    def test_a_limit_that_is_none_is_refused(self, limit: str) -> None:
        with pytest.raises(QueryError, match="from 1 to 1000"):
            read_page_query(f"limit={limit}", anthropic=True)

    def test_two_directions_are_refused(self) -> None:
        with pytest.raises(QueryError, match="not both"):
            read_page_query("after_id=a&before_id=b", anthropic=True)

    def test_a_query_with_very_many_parameters_is_refused(self) -> None:
        with pytest.raises(QueryError, match="too many"):
            read_page_query("a=1&" * 100, anthropic=True)
