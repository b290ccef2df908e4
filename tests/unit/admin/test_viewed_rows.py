"""What changed in rows since viewers got them."""

from lora_router.admin.viewed_rows import Change, Part, Row, ViewedRows

PART = Part(
    "fleet",
    "pods",
    key=("name",),
    most=3,
    unlike=frozenset({"age"}),
    urgent=lambda row: row.get("bad", False),
)


def row(name: str, **fields: object) -> Row:
    return {"name": name, **fields}


def test_at_first_all_rows_are_told() -> None:
    rows = ViewedRows(PART)

    assert rows.update([row("a", n=1), row("b", n=2)], 0) == Change(
        [row("a", n=1), row("b", n=2)], [], 0
    )
    assert rows.all() == Change([row("a", n=1), row("b", n=2)], [], 0)


def test_later_only_fields_that_changed_are_told() -> None:
    rows = ViewedRows(PART)
    rows.update([row("a", n=1, text="x"), row("b", n=2)], 0)

    assert rows.update([row("a", n=5, text="x"), row("b", n=2)], 0) == Change(
        [row("a", n=5)], [], 0
    )


def test_what_is_the_same_is_not_told() -> None:
    rows = ViewedRows(PART)
    rows.update([row("a", n=1, age=3.0)], 0)

    assert rows.update([row("a", n=1, age=4.0)], 0) is None


def test_rows_that_are_gone_are_told_by_their_keys() -> None:
    rows = ViewedRows(PART)
    rows.update([row("a"), row("b")], 0)

    assert rows.update([row("b")], 0) == Change([], [("a",)], 0)


def test_of_too_many_rows_the_urgent_ones_are_kept_and_the_others_are_counted() -> None:
    rows = ViewedRows(PART)
    many = [row(name) for name in "abcd"] + [row("e", bad=True)]

    change = rows.update(many, 10)

    assert change is not None
    assert [each["name"] for each in change.rows] == ["e", "a", "b"]
    assert change.more == 12


def test_the_first_row_with_a_key_counts() -> None:
    rows = ViewedRows(PART)

    assert rows.update([row("a", n=1), row("a", n=2)], 0) == Change([row("a", n=1)], [], 0)
