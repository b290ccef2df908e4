"""Recorded traffic: the formats of files, and errors in them."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.simulator.no_value import has_value
from lora_router.simulator.recorded import recording
from lora_router.simulator.recorded.formats import FORMATS, read_recording
from lora_router.simulator.recorded.recording import RecordedRequest, TraceError
from tests.examples import examples

OWN = "timestamp,user,model,prompt_tokens,output_tokens\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
SESSIONS = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Log Type\n"


def mooncake(**changes: Any) -> str:
    request = {"timestamp": 0, "input_length": 1000, "output_length": 5, "hash_ids": [0, 7]}
    return json.dumps({**request, **changes}) + "\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace"


def requests(file: Path, text: str) -> tuple[RecordedRequest, ...]:
    file.write_text(text)
    return read_recording(file).requests


def test_our_own_format_names_the_model_of_each_request(file: Path) -> None:
    lines = "1000.5,x,sql,10,20\n1000.0,y,base,30,40\n"
    assert requests(file, OWN + lines) == (
        RecordedRequest(0.0, 30, 40, "base"),
        RecordedRequest(0.5, 10, 20, "sql"),
    )
    assert read_recording(file).names_models


def test_mooncakes_ids_are_blocks_and_the_second_one_is_the_session(file: Path) -> None:
    lines = mooncake(timestamp=1500), mooncake(timestamp=2500, input_length=512, hash_ids=[0])
    assert requests(file, "".join(lines)) == (
        RecordedRequest(0.0, 1000, 5, session=7, blocks=(0, 7), block_tokens=512),
        RecordedRequest(1.0, 512, 5, session=None, blocks=(0,), block_tokens=512),
    )
    assert not read_recording(file).names_models


def test_azures_times_are_dates_of_2023_and_of_2024(file: Path) -> None:
    of_2023 = "2023-11-16 18:15:46.5000000,374,44\r\n2023-11-16 18:15:47.0000000,396,109\r\n"
    of_2024 = "2024-05-10 00:00:00.500000+00:00,374,44\n2024-05-10 00:00:01+00:00,396,109"
    expected = (RecordedRequest(0.0, 374, 44), RecordedRequest(0.5, 396, 109))

    assert requests(file, AZURE.replace("\n", "\r\n") + of_2023) == expected
    assert requests(file, AZURE + of_2024) == expected


def test_burstgpts_later_files_name_sessions(file: Path) -> None:
    early = "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n"
    late = "5.0,a-uuid,43,GPT-4,906,446,Conversation log\n6.5,,1,GPT-4,30,40,API log\n"

    assert requests(file, BURST + early) == (
        RecordedRequest(0.0, 472, 18),
        RecordedRequest(40.0, 1087, 230),
    )
    assert requests(file, SESSIONS + late) == (
        RecordedRequest(0.0, 906, 446, session="a-uuid"),
        RecordedRequest(1.5, 30, 40),
    )


def test_requests_without_an_answer_are_left_out(file: Path) -> None:
    burst = "5,ChatGPT,472,0,472,API log\n45,GPT-4,1087,230,1317,API log\n"
    assert requests(file, BURST + burst) == (RecordedRequest(0.0, 1087, 230),)
    azure = "2023-11-16 18:15:46,9,0\n2023-11-16 18:15:47,9,1\n"
    assert requests(file, AZURE + azure) == (RecordedRequest(0.0, 9, 1),)


def test_requests_of_the_same_moment_stay_in_the_order_of_the_file(file: Path) -> None:
    lines = [mooncake(output_length=length) for length in (9, 3, 5)]
    assert [each.output_tokens for each in requests(file, "".join(lines))] == [9, 3, 5]


def test_the_format_can_be_named(file: Path) -> None:
    file.write_text(BURST + "5,ChatGPT,472,18,490,Conversation log\n")

    found = read_recording(file, "burstgpt")
    assert found.format == "burstgpt"
    assert not has_value(found.rate), "one request has no rate"
    with pytest.raises(TraceError, match="no column ContextTokens, GeneratedTokens, TIMESTAMP"):
        read_recording(file, "azure")
    with pytest.raises(TraceError, match="--trace-format: must be one of csv, mooncake, azure"):
        read_recording(file, "azur")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: is the beginning of no known format (csv: columns timestamp, model, prom"),
        ("a,b\n1,2\n", "mooncake: one JSON object a line with timestamp, input_length"),
        (OWN, "has no requests"),
        (OWN + "x,u,m,1,1\n", "line 2: timestamp: must be a number from 0 to 1e+15, not 'x'"),
        (OWN + "nan,u,m,1,1\n", "line 2: timestamp: must be a number from 0 to 1e+15, not 'nan'"),
        (OWN + "1,u,m,1\n", "line 2: output_tokens: is missing, the line is too short"),
        (OWN + "1,u,m,1,0\n", "line 2: output_tokens: must be a whole number from 1 to 1,000,000"),
        (OWN + "1,u,m,1,9999999\n", "line 2: output_tokens: must be a whole number from 1"),
        (OWN + "1,u,,1,1\n", "line 2: model: must be a name of 1 to 256 characters, not ''"),
        (AZURE + "noon,1,1\n", "line 2: TIMESTAMP: must be a date and time such as 2023-11-16 18"),
        (AZURE + "2023-11-16,-1,1\n", "line 2: ContextTokens: must be a whole number from 0 to"),
        (BURST + "1,m,2.5,1,1,x\n", "line 2: Request tokens: must be a whole number from 0 to"),
        (BURST + "1,m,2\n", "line 2: Response tokens: is missing, the line is too short"),
        ("{\n", "line 1: not JSON: "),
        (mooncake() + "[]\n", "line 2: must be an object with the keys timestamp, input_length, "),
        ('{"timestamp": 1}\n', "line 1: input_length: is required"),
        (mooncake(timestamp=-1), "line 1: timestamp: must be a number from 0 to 1e+15, not -1"),
        (
            mooncake(input_length=True),
            "input_length: must be a whole number from 1 to 1,000,000, not true",
        ),
        (mooncake(output_length=None), "whole number from 1 to 1,000,000, not null"),
        (mooncake(hash_ids=[1]), "hash_ids: must be a list of 2 ids (blocks of 512 tokens in inp"),
        (mooncake(hash_ids=7), "hash_ids: must be a list of 2 ids"),
        (mooncake(hash_ids=[1, -2]), "hash_ids: must be whole numbers of 0 or more, not -2"),
    ],
)
def test_a_wrong_line_is_named_with_its_value_and_what_is_allowed(
    file: Path, text: str, complaint: str
) -> None:
    with pytest.raises(TraceError) as error:
        requests(file, text)
    assert str(error.value).startswith(f"{file}")
    assert complaint in str(error.value)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"timestamp,\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    for name, reason in (
        ("missing", "No such file or directory"),
        ("folder", "Is a directory"),
        ("binary", "it is not UTF-8"),
    ):
        with pytest.raises(TraceError) as error:
            read_recording(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: cannot be read: {reason}"


def test_lines_and_requests_have_bounds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TraceError, match="line 2: longer than 1,048,576 characters"):
        requests(file, OWN + "1,u," + "m" * 1_100_000 + ",1,1\n")
    with pytest.raises(TraceError, match="line 1: longer than 1,048,576 characters"):
        requests(file, mooncake(more="x" * 1_100_000))
    monkeypatch.setattr(recording, "MOST_REQUESTS", 2)
    with pytest.raises(TraceError, match="has more than 2 requests"):
        requests(file, mooncake() * 3)


# Any file is read, or refused with an error that names it

CELLS = st.one_of(
    st.text(max_size=8),
    st.integers(-5, 2_000_000).map(str),
    st.floats().map(str),
    st.sampled_from(["2023-11-16 18:15:46.6805900", "ChatGPT", '"', "9" * 5_000]),
)
HEADS = st.sampled_from([OWN, AZURE, BURST, SESSIONS])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@pytest.mark.slow
@examples(50)
@given(head=HEADS, rows=st.lists(st.lists(CELLS, max_size=7), max_size=2))
def test_any_csv_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, head: str, rows: list[list[str]]
) -> None:
    text = head + "".join(f"{','.join(row)}\n" for row in rows)
    check_read_or_refused(tmp_path_factory.getbasetemp() / "any.csv", text)


@pytest.mark.slow
@examples(50)
@given(changes=st.dictionaries(st.sampled_from(["timestamp", "input_length", "hash_ids"]), JSON))
def test_any_json_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    check_read_or_refused(tmp_path_factory.getbasetemp() / "any.jsonl", mooncake(**changes))


@given(name=st.sampled_from(sorted(FORMATS)), content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bytes"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"any\.bytes"):
        read_recording(path, name)


def check_read_or_refused(path: Path, text: str) -> None:
    path.write_bytes(text.encode(errors="replace"))
    try:
        found = read_recording(path).requests
    except TraceError as error:
        if str(path) not in str(error):
            raise AssertionError("the error does not name the file") from error
        return
    assert found[0].at == 0
    assert [each.at for each in found] == sorted(each.at for each in found)
    assert all(0 <= each.prompt_tokens <= 1_000_000 for each in found)
    assert all(1 <= each.output_tokens <= 1_000_000 for each in found)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (OWN + "1,x,sql,10,20\n", "csv"),
        (mooncake(), "mooncake"),
        (AZURE + "2023-11-16 18:15:46.5000000,374,44\n", "azure"),
    ],
)
def test_blank_lines_at_the_beginning_are_skipped(file: Path, text: str, form: str) -> None:
    expected = requests(file, text)

    assert requests(file, "\n  \r\n" + text) == expected
    assert read_recording(file).format == read_recording(file, form).format == form
    file.write_text("\n\n" + OWN + "\nx,x,sql,10,20\n")
    with pytest.raises(TraceError, match="line 5: timestamp: must be"):
        read_recording(file)


@pytest.mark.parametrize("text", ["", "\n", "\n" * 2000, " \n\nnothing\n"])
def test_a_file_of_blank_lines_has_no_format(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(TraceError, match="is the beginning of no known format"):
        read_recording(file)
    with pytest.raises(TraceError, match=r"no column|no requests"):
        read_recording(file, "csv")


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("timestamp,model,prompt_tokens,output_tokens,model\n1,sql,1,2,law\n", "model"),
        ("Session ID," + SESSIONS + "1,5.0,2,43,GPT-4,906,446,Chat log\n", "Session ID"),
    ],
)
def test_a_column_that_is_there_twice_is_refused(file: Path, text: str, column: str) -> None:
    file.write_text(text)
    with pytest.raises(TraceError, match=f"trace: {column}: there are 2 such columns"):
        read_recording(file)


def test_other_columns_may_be_there_twice(file: Path) -> None:
    text = "timestamp,note,note,model,prompt_tokens,output_tokens\n1,a,b,sql,10,20\n"
    assert requests(file, text) == (RecordedRequest(0.0, 10, 20, "sql"),)
