from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.components.mmd.report import formats

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (0.00321, "0.00321"),
        (0.000189, "0.000189"),
        (0.0000310, f"3.10{TIMES}10⁻⁵"),
        (-1e-9, f"{MINUS}1.00{TIMES}10⁻⁹"),
        (0.9996, "1.00"),
        (12345.6, "12,346"),
        (999999.9, f"1.00{TIMES}10⁶"),
        (1e300, f"1.00{TIMES}10³⁰⁰"),
        (math.nan, formats.ABSENT),
        (-math.inf, formats.ABSENT),
    ],
)
def test_number_keeps_three_digits_and_never_says_nan(value, expected):
    assert formats.number(value) == expected


@given(st.floats(min_value=-1e300, max_value=1e300))
def test_number_reads_back_to_within_its_digits(value):
    text = formats.number(value).replace(MINUS, "-").replace(",", "")
    mantissa, _, exponent = text.partition(f"{TIMES}10")
    digits = exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    read = float(f"{mantissa}e{digits or 0}")
    # A half of the third digit, and what is lost among the smallest of floats.
    assert abs(read - value) <= 0.0051 * abs(value) + 1e-320


@pytest.mark.parametrize(
    ("level", "percent", "rate"),
    [
        (0.05, "5%", "about 1 run in 20"),
        (0.01, "1%", "about 1 run in 100"),
        (0.0125, "1.25%", "about 1 run in 80"),
        (1e-6, "0.0001%", "about 1 run in 1,000,000"),
        (0.4, "40%", "about 40 runs in 100"),
        (0.9999, "99.99%", "nearly every run"),
    ],
)
def test_levels_are_written_as_percent_and_as_a_rate_of_runs(level, percent, rate):
    assert formats.level_percent(level) == percent
    assert formats.one_in(level) == rate


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1 / 501, "0.0020"),
        (0.05, "0.050"),
        (0.3434, "0.343"),
        (0.99996, "> 0.999"),
        (1.0, "1"),
        (math.nan, formats.ABSENT),
    ],
)
def test_p_values(value, expected):
    assert formats.p_value(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, "0.0 s"),
        (0.214, "0.21 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (96.3, "1 min 36 s"),
        (3599.7, "1 h 00 min"),
        (7500.0, "2 h 05 min"),
        (math.inf, formats.ABSENT),
    ],
)
def test_durations(seconds, expected):
    assert formats.duration(seconds) == expected


def test_a_short_text_is_kept_on_one_line():
    assert formats.clean(" two\n\tlines \r\n", 300) == "two lines"


def test_a_long_text_is_cut_with_an_ellipsis_and_only_its_head_is_read():
    assert formats.clean("a" * 10_000_000, 300) == "a" * 300 + "…"
    assert formats.clean("a" * 300, 300) == "a" * 300


def test_a_cut_does_not_glue_the_ellipsis_to_a_joined_emoji():
    assert formats.clean("ab\U0001f469\u200d\U0001f467", 4) == "ab\U0001f469…"


@given(st.text(alphabet=st.characters(), max_size=400), st.integers(1, 50))
def test_a_cleaned_text_can_stand_in_an_html_file(text, limit):
    cleaned = formats.clean(text, limit)
    cleaned.encode("utf-8")
    assert len(cleaned) <= limit + 1
    assert all(character >= " " and not "\x7f" <= character <= "\x9f" for character in cleaned)


def test_a_lone_surrogate_is_replaced():
    assert formats.clean("a\ud800b\x00", 10) == "a\ufffdb\ufffd"


@pytest.mark.parametrize(
    ("digest", "expected"),
    [("sha256:0123456789abcdef", "sha256:0123456789ab…"), ("sha256:01", "sha256:01"), ("f" * 99, "f" * 12 + "…")],
)
def test_digests_are_shortened(digest, expected):
    assert formats.short_digest(digest) == expected


def test_times_are_utc_and_need_no_locale():
    assert formats.long_time("2026-03-14T08:00:00+02:00") == "14 March 2026, 06:00 UTC"
    assert formats.long_time("2026-03-14T06:00:00Z") == "14 March 2026, 06:00 UTC"
    assert formats.long_time("0001-01-01T00:00:00+09:00") == "0001-01-01T00:00:00+09:00"
    assert formats.long_time("last week") == "last week"


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        (["2026-03-01T06:00Z", "2026-03-02T06:00Z"], ["1 Mar", "2 Mar"]),
        (["2026-03-01T06:00Z", "2026-03-01T07:00Z"], ["06:00", "07:00"]),
        (["2025-12-31T06:00Z", "2026-01-01T06:00Z"], ["31 Dec 2025", "1 Jan 2026"]),
        (
            ["2026-03-01T06:00Z", "2026-03-01T18:00Z", "2026-03-02T06:00Z"],
            ["1 Mar 06:00", "1 Mar 18:00", "2 Mar 06:00"],
        ),
        (["2026-03-01T06:00Z", "yesterday"], ["2026-03-01T06:00…", "yesterday"]),
    ],
)
def test_tick_dates_are_as_short_as_they_can_be(created, expected):
    assert formats.short_times(created) == expected
