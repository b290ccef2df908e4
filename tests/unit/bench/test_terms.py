"""The table of what each term of the cost is worth."""

from pathlib import Path

import pytest

from bench.terms import WITHOUT, Case, play, table

SMALL = """\
about: "two pods"
pods: 2
slots: 2
adapters: 3
rate: 4
seconds: 20
"""


@pytest.mark.slow
def test_each_variant_is_played_on_the_same_requests(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    case = Case(str(file))

    found = {(case, left_out): play(case, left_out, seed=1) for left_out in WITHOUT}

    assert len({summary.requests for summary in found.values()}) == 1
    heading, row = table([case], found).splitlines()[2], table([case], found).splitlines()[4]
    assert heading.startswith("| scenario | all terms | prefix |")
    assert row.startswith("| `small` | ")
    assert row.count("%") == len(WITHOUT)
