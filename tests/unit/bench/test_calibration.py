"""Simulated pods take as long as published servers did."""

import pytest

from bench.calibration import Figure, figures

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("figure", figures(), ids=lambda figure: figure.what)
def test_a_simulated_server_is_within_a_third_of_a_published_one(figure: Figure) -> None:
    assert figure.simulate() == pytest.approx(figure.published, rel=1 / 3)
