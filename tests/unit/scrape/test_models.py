"""Reading ``/v1/models``."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.reading_bounds import MAX_MODELS, MAX_NAME_LENGTH
from lora_router.scrape import models
from lora_router.scrape.models import (
    LONGEST_PIECE_BYTES,
    PIECE_BYTES,
    ModelsError,
    TooManyModelsError,
    models_in_steps,
    read_models,
)

RECORDED = Path(__file__).parents[2] / "data" / "vllm-0.32.0" / "v1_models.json"


def read(body: bytes) -> tuple[set[str], dict[str, str | None]]:
    catalog = read_models(body)
    return set(catalog.base_models), dict(catalog.adapters)


def vllm_page(adapters: int, **changes: object) -> bytes:
    """A page as vLLM writes it, which is the recorded one with more adapters."""
    page = json.loads(RECORDED.read_bytes())
    base, adapter, *_ = page["data"]
    more = [adapter | {"id": f"adapter-{number}"} | changes for number in range(adapters)]
    page["data"] = [base, *more]
    return json.dumps(page, separators=(",", ":")).encode()


def test_the_recorded_list_has_a_base_model_and_its_adapters() -> None:
    assert read(RECORDED.read_bytes()) == (
        {"base"},
        dict.fromkeys(("a1", "a2", "a3", "a4"), "base"),
    )


def test_a_model_that_is_its_own_parent_is_no_adapter() -> None:
    assert read(b'{"data": [{"id": "m", "parent": "m"}]}') == ({"m"}, {})


def test_a_model_whose_name_no_request_can_contain_is_left_out() -> None:
    longest = "x" * MAX_NAME_LENGTH
    listed = [
        {"id": ""},
        {"id": longest},
        {"id": longest + "x"},
        {"id": "a", "parent": longest},
        {"id": "b", "parent": longest + "x"},
    ]
    assert read(json.dumps({"data": listed}).encode()) == ({longest}, {"a": longest})


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"data": {}}', b'{"data": [{}]}', b'{"data": [{"id": 5}]}', b"\xff"],
)
def test_what_is_no_list_of_models_is_refused(body: bytes) -> None:
    with pytest.raises(ModelsError, match="not a list of models"):
        read_models(body)


@given(st.binary(max_size=100))
def test_no_bytes_whatever_raise_anything_else(body: bytes) -> None:
    for wrapped in (body, b'{"data": [' + body + b"]}"):
        with suppress(ModelsError):
            read_models(wrapped)


# Long lists are read in pieces


def steps_of(body: bytes) -> tuple[int, Catalog]:
    steps = models_in_steps(body)
    count = 1
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return count, end.value
        count += 1


@pytest.mark.slow
def test_a_list_of_ten_thousand_adapters_is_read_in_pieces() -> None:
    body = vllm_page(10_000)
    count, catalog = steps_of(body)

    assert catalog.base_models == {"base"}
    assert catalog.adapters == {f"adapter-{number}": "base" for number in range(10_000)}
    assert len(body) / LONGEST_PIECE_BYTES <= count <= len(body) / PIECE_BYTES + 1


@pytest.mark.parametrize("root", ["},{", '"},{"', "}]},{", '\\"},{\\"', "[{" * 50])
def test_a_text_that_looks_like_the_end_of_a_model_is_a_text(root: str) -> None:
    _, catalog = steps_of(vllm_page(500, root=root))

    assert len(catalog.adapters) == 500


@pytest.mark.parametrize(
    "nested", [[{}, {}], [{"id": "x"}, {"id": "y"}, {"id": "z"}], [[{}], [{}]]]
)
def test_objects_inside_a_model_are_no_models(nested: object) -> None:
    _, catalog = steps_of(vllm_page(500, permission=nested))

    assert catalog.base_models == {"base"}
    assert len(catalog.adapters) == 500


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=20), st.none() | st.text(max_size=20), st.text()),
        max_size=60,
    ),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.integers(1, 400),
)
def test_pieces_contain_what_the_whole_contains(
    listed: Sequence[tuple[str, str | None, str]], separators: tuple[str, str], piece: int
) -> None:
    data = [
        {"id": name, "parent": parent, "root": root, "x": [{}, {"y": root}]}
        for name, parent, root in listed
    ]
    body = json.dumps({"object": "list", "data": data}, separators=separators).encode()
    whole = read(body)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(models, "PIECE_BYTES", piece)
        patched.setattr(models, "LONGEST_PIECE_BYTES", 1_000_000)
        patched.setattr(models, "_TRIES", 1000)
        assert read(body) == whole


@given(st.binary(max_size=50), st.integers(0, 1 << 20), st.sampled_from([8, 64]))
def test_a_damaged_long_list_raises_nothing_else(damage: bytes, at: int, adapters: int) -> None:
    body = vllm_page(adapters)
    at %= len(body)
    with suppress(ModelsError):
        read_models(body[:at] + damage + body[at + 1 :])


# What a list may cost


class CountedDecoder:
    """Counts the bytes that are decoded in each step."""

    def __init__(self, decoder: object) -> None:
        self._decoder = decoder
        self.bytes = 0

    def decode(self, data: bytes) -> object:
        self.bytes += len(data)
        return self._decoder.decode(data)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "body",
    [
        vllm_page(2_000),
        vllm_page(1, root="x" * 2_000_000),
        vllm_page(1, permission=[{}] * 200_000),
        vllm_page(2_000, permission=[{}] * 20),
        b'{"data":[' + b'{"id":"a"},' * 200_000 + b'{"id":"a"}]}',
        b'{"data":[' + b"{" * 2_000_000,
        b'{"data":[' + b"[" * 2_000_000,
        b'{"data":[' + b"},{" * 700_000,
        b'{"data":[' + b" " * 2_000_000,
        b'{"x":[' + b"{}," * 700_000 + b'{}],"data":[]}',
        b" " * 2_000_000,
        b'{"object":"list","data":[{"id":"' + b"\\n" * 1_000_000 + b'"}]}',
    ],
    ids=lambda body: body[:30].decode(),
)
def test_a_step_decodes_few_bytes_whatever_is_in_the_list(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, piece = CountedDecoder(models._page_decoder), CountedDecoder(models._piece_decoder)
    monkeypatch.setattr(models, "_page_decoder", page)
    monkeypatch.setattr(models, "_piece_decoder", piece)
    steps = models_in_steps(body)
    going, worst = True, 0
    while going:
        page.bytes = piece.bytes = 0
        try:
            next(steps)
        except (StopIteration, ModelsError):
            going = False
        worst = max(worst, page.bytes + piece.bytes)

    assert worst <= models._TRIES * (LONGEST_PIECE_BYTES + 100)


@pytest.mark.slow
def test_a_list_has_a_length() -> None:
    listed = [{"id": str(number)} for number in range(MAX_MODELS + 1)]
    assert len(read_models(json.dumps({"data": listed[:-1]}).encode())) == MAX_MODELS
    with pytest.raises(TooManyModelsError, match="more than 50000 models"):
        read_models(json.dumps({"data": listed}).encode())


class TestEnginesWithoutParents:
    LIST = b'{"data":[{"id":"internlm","root":"internlm"},{"id":"sql"},{"id":"chat"}]}'

    def test_lmdeploy_lists_its_adapters_after_the_base_model(self) -> None:
        catalog = read_models(self.LIST, "lmdeploy")

        assert catalog.base_models == {"internlm"}
        assert dict(catalog.adapters) == {"sql": "internlm", "chat": "internlm"}

    @pytest.mark.parametrize("engine", [None, "vllm", "tgi"])
    def test_elsewhere_a_model_without_a_parent_is_a_base_model(self, engine: str | None) -> None:
        assert read_models(self.LIST, engine).base_models == {"internlm", "sql", "chat"}

    def test_the_base_model_is_the_first_of_all_pieces(self) -> None:
        listed = [{"id": f"m{number}", "note": "x" * 100} for number in range(2000)]
        catalog = read_models(json.dumps({"data": listed}).encode(), "lmdeploy")

        assert catalog.base_models == {"m0"}
        assert set(catalog.adapters.values()) == {"m0"}
        assert len(catalog.adapters) == 1999
