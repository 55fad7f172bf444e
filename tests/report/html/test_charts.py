"""Covers the drawing of charts: scales, ticks, and labels that do not overlap."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossroads.report.html.charts import Chart, Scale, around, horizontal, spread, vertical


def test_a_scale_maps_values_to_pixels_and_keeps_them_inside():
    scale = Scale(0, 10, 100, 200)
    assert [scale(value) for value in (0, 5, 10, -3, 30)] == [100, 150, 200, 100, 200]


def test_a_logarithmic_scale_has_a_tick_per_decade():
    assert Scale(1, 10_000, 0, 100, log=True).ticks() == [1, 10, 100, 1000, 10_000]
    assert Scale(70, 900, 0, 100, log=True).ticks() == [100, 200, 500]


@given(st.floats(0.001, 1e6), st.floats(0.01, 1e6))
def test_ticks_are_few_and_within_the_scale(low, extent):
    ticks = Scale(low, low + extent, 0, 100).ticks()
    assert len(ticks) <= 8
    assert all(low - extent * 1e-6 <= tick <= low + extent * (1 + 1e-6) for tick in ticks)


@pytest.mark.parametrize(("values", "limits"), [([0.95, 0.99], (0.9, 1.0)), ([0.5], (0.44, 0.56)), ([], (0.0, 1.0))])
def test_limits_are_round_and_around_the_values(values, limits):
    low, high = around(values)
    assert low <= min(values, default=0)
    assert high >= max(values, default=1)
    assert (low, high) == pytest.approx(limits, abs=0.06)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_labels_keep_their_distance(wanted):
    placed = sorted(spread(wanted, 0, 200, gap=15))
    assert all(after - before >= 15 - 1e-6 for before, after in pairwise(placed))


def test_a_chart_has_a_title_a_description_and_its_axes():
    chart = Chart(horizontal(0, 10), vertical(0, 1), "epoch", "accuracy")
    chart.line([(0, 0.5), (10, 1.0)], "accent")
    drawn = chart.svg("A & B", "It rises.")
    assert "<title" in drawn
    assert ">A &amp; B</title>" in drawn
    assert ">It rises.</desc>" in drawn
    assert 'role="img"' in drawn
    assert ">epoch</text>" in drawn
    assert drawn == chart.svg("A & B", "It rises.")
