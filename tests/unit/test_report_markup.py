"""Markup escapes by default; scales put values where they belong."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsae.concepts.report.markup import Markup, markup, tag
from recsae.concepts.report.scales import linear, shares


def test_text_and_attributes_are_escaped_and_markup_is_not() -> None:
    inner = tag("b", "a < b & c")
    assert tag("p", inner, ' "x"', title='"><i>') == (
        '<p title="&quot;&gt;&lt;i&gt;"><b>a &lt; b &amp; c</b> &quot;x&quot;</p>'
    )
    assert isinstance(markup([inner, None, "<"]), Markup)


def test_attributes_are_written_as_html_has_them() -> None:
    assert tag("input", type="search", class_="a", data_id=3, hidden=True, title=None, open=False) == (
        '<input type="search" class="a" data-id="3" hidden>'
    )


@given(
    st.floats(-1e6, 1e6, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6),
    st.floats(1e-6, 1e6),
    st.integers(2, 8),
)
def test_a_linear_scale_holds_its_values_with_few_distinct_ticks(low: float, span: float, wanted: int) -> None:
    high = low + span
    if (high - low) / max(abs(low), abs(high)) < 1e-6:
        return
    scale = linear(low, high, wanted)
    slack = 1e-6 * (scale.high - scale.low)
    assert scale.low <= low + slack
    assert scale.high >= high - slack
    assert 2 <= len(scale.ticks) <= 2 * wanted + 3
    assert len({text for _, text in scale.ticks}) == len(scale.ticks)


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.3), (0.0, 0.0), (math.nan, 1.0)])
def test_a_scale_of_one_value_or_none_still_has_room(low: float, high: float) -> None:
    scale = linear(low, high)
    assert scale.high > scale.low


def test_values_beyond_a_scale_lie_on_its_end() -> None:
    assert (shares().place(-1), shares().place(0.25), shares().place(7)) == (0, 0.25, 1)
