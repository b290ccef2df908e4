from lora_router.adapters.declarations import Declarations
from lora_router.adapters.declared import DeclaredAdapter, is_name, is_version_of
from lora_router.adapters.merged_lists import Problem


def _adapter(name: str, **fields: object) -> DeclaredAdapter:
    return DeclaredAdapter(name, "llama", f"s3://adapters/{name}", **fields)  # type: ignore[arg-type]


def test_an_adapter_is_found_by_its_name_and_by_its_aliases() -> None:
    declarations = Declarations()
    sql = _adapter("sql-lora", aliases=("sql",))
    declarations.replace("file", [sql])
    assert declarations.get("sql-lora") is declarations.get("sql") is sql
    assert declarations.get("other") is None


def test_a_name_that_two_origins_declare_is_that_of_the_first_and_the_other_is_a_problem() -> None:
    declarations = Declarations()
    of_command = _adapter("sql-lora", origin="command")
    declarations.replace("command", [of_command])
    assert declarations.get("sql-lora") is of_command
    of_file = _adapter("sql-lora")
    declarations.replace("file", [of_file])
    assert list(declarations) == [of_file]
    assert declarations.problems == (
        Problem("sql-lora", "command", "'sql-lora' is declared already by file as 'sql-lora'"),
    )


def test_listeners_hear_of_an_adapter_that_gets_an_alias_because_another_one_lost_it() -> None:
    declarations = Declarations()
    first, second = _adapter("a", aliases=("x",)), _adapter("b", aliases=("x",))
    declarations.replace("file", [first, second])
    heard: list[str] = []
    declarations.subscribe_to_names(heard.extend)
    declarations.replace("file", [second])
    assert declarations.get("x") is second
    assert sorted(heard) == ["a", "b"]


def test_an_alias_that_is_the_name_of_another_adapter_is_a_problem() -> None:
    declarations = Declarations()
    sql, chat = _adapter("sql"), _adapter("chat", aliases=("sql", "talk"))
    declarations.replace("file", [sql, chat])
    assert declarations.get("sql") is sql
    assert declarations.get("talk") is chat
    assert [problem.reason for problem in declarations.problems] == [
        "'sql' is declared already by file as 'sql'"
    ]


def test_listeners_are_called_after_a_change_and_only_then() -> None:
    declarations, seen = Declarations(), []
    declarations.subscribe(lambda: seen.append(len(declarations)))
    declarations.replace("file", [_adapter("a"), _adapter("b")])
    declarations.replace("file", [_adapter("a"), _adapter("b")])
    declarations.replace("file", [])
    assert seen == [2, 0]


def test_pods_serve_a_version_under_a_name_of_its_own() -> None:
    assert _adapter("sql-lora").served_name == "sql-lora"
    assert _adapter("sql-lora", version="2").served_name == "sql-lora@2"
    assert is_version_of("sql-lora", "sql-lora")
    assert is_version_of("sql-lora@2", "sql-lora")
    assert not is_version_of("sql-lora-2", "sql-lora")


def test_names_can_be_written_into_vllms_metrics() -> None:
    assert is_name("sql-lora_1.5/x")
    for bad in ("", "a,b", "a b", "a@1", "a\n", "x" * 257, 7, None):
        assert not is_name(bad)
