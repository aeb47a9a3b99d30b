"""Sizes, buckets and rows."""

import pytest

from wallaroo_hf.layout.grid import (
    BUCKETS_512,
    check_size,
    nearest_bucket,
    nearest_indicator,
    parse_aspect_ratio,
    render_rows,
)


def test_buckets_are_whole_tokens_around_512():
    assert len(BUCKETS_512) == 19
    for height, width in BUCKETS_512:
        assert height % 16 == width % 16 == 0
        assert 0.85 < height * width / 512**2 < 1.05


def test_ties_take_the_first_bucket():
    assert nearest_bucket(1.5, 1.0, [(16, 16), (32, 16)]) == (16, 16)


@pytest.mark.parametrize(("given", "ratio"), [("16:9", 16 / 9), ("1:1", 1.0), ("1.5", 1.5), (0.75, 0.75)])
def test_aspect_ratio(given, ratio):
    assert parse_aspect_ratio(given) == pytest.approx(ratio)


@pytest.mark.parametrize("given", ["wide", "16:0", "-1:2", 0, "1:2:3", float("nan"), 10**400, [1.0], None])
def test_bad_aspect_ratio(given):
    with pytest.raises(ValueError, match="16:9"):
        parse_aspect_ratio(given)


def test_a_long_ratio_is_not_quoted_whole():
    with pytest.raises(ValueError, match="must be width to height") as refused:
        parse_aspect_ratio("1\n" * 10_000)
    assert len(str(refused.value)) < 250 and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("height", "words"),
    [(100, "try 96 or 112"), (0, "try 16 or 32"), (-16, "try 16"), (64.0, "64"), (float("inf"), "try 16")],
)
def test_bad_size(height, words):
    with pytest.raises(ValueError, match=words):
        check_size(height, 64, 16, plain_grid=False)


def test_plain_grid_is_square():
    assert check_size(64, 64, 16, plain_grid=True) == (4, 4)
    assert check_size(64, 96, 16, plain_grid=False) == (4, 6)
    with pytest.raises(ValueError, match="square"):
        check_size(64, 96, 16, plain_grid=True)


def test_indicators_of_other_sizes_are_the_nearest():
    assert nearest_indicator(256, (352, 512, 704)) == 352
    assert nearest_indicator(432, (352, 512, 704)) == 352  # a tie
    assert nearest_indicator(1024, (352, 512, 704)) == 704


def test_rows():
    assert render_rows("c", 2, 3, line_breaks=False) == "cccccc"
    assert render_rows("c", 2, 3, line_breaks=True) == "ccc<|end_of_line>|ccc"
