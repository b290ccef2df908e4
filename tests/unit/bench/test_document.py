"""The page of the documentation that a run of the bench writes."""

import re

from bench.document import document
from bench.machine import run_notes
from bench.results import Results


def test_the_page_says_when_and_of_which_commit_its_figures_are() -> None:
    run = {"date": "2026-12-01", "commit": "b85f252", "plan": "fewer points, each for less time"}
    results = Results({"CPU": "a fast one"}, 60.0, ("builtin",), (), (), (), (), {}, run)

    head, _, rest = document(results).partition("## Goals")
    assert head.splitlines()[-4:-1] == [f"- {name}: {text}" for name, text in run.items()]
    assert "- CPU: a fast one" in rest


def test_a_run_knows_its_date_and_its_commit() -> None:
    notes = run_notes()

    assert re.fullmatch(r"20\d\d-\d\d-\d\d", notes["date"])
    assert re.fullmatch(r"unknown|[0-9a-f]{12,40}(, with changes)?", notes["commit"])
