from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from driftline.components.mmd.report.formats import power_of_ten
from driftline.components.mmd.report.verdict import compose, is_smallest, p_in_words, p_text, reached


def sized(result, n: int, m: int):
    """Return what the result's samples would be with other numbers of texts."""
    sides = zip(("reference", "current"), (n, m), strict=True)
    return {name: dataclasses.replace(getattr(result, name), sampled=k, rows=k) for name, k in sides}


def words(data) -> str:
    made = compose(data.result, data.history)
    return " ".join((made.headline, made.lead, *made.notes)).replace("\u00a0", " ")


def test_drift_says_so_with_the_smallest_p_value_in_words(sample):
    data = sample(drift=True)
    said = words(data)
    assert compose(data.result, data.history).tone == "drift"
    assert "no longer looks like the reference" in said
    assert "shuffled 500 times at random" in said
    assert "in none of the shuffles were the samples as far apart as now" in said
    assert "p ≤ 1/501, the smallest value that so many shuffles give" in said
    assert "about 1 run in 20" in said
    assert "not that they are worse" in said


def test_quiet_says_that_it_is_no_proof(sample):
    data = sample(drift=False)
    said = words(data)
    assert compose(data.result, data.history).tone == "quiet"
    assert "No drift found at the 5% level" in said
    assert "not proof of sameness" in said
    assert "1,000 texts against 1,000" in said
    assert "about 1 run in 20" in said
    count = int((data.permuted >= data.result.statistic).sum())
    assert f"in {count} of the shuffles" in said


@pytest.mark.parametrize(("permutations", "exceeding"), [(19, 0), (19, 3), (500, 24), (10_000, 9_999)])
def test_reached_counts_what_the_p_value_came_from(sample, changed, permutations, exceeding):
    p_value = (1 + exceeding) / (permutations + 1)
    result = changed(sample(), permutations=permutations, p_value=p_value).result
    assert reached(result) == exceeding
    assert is_smallest(result) == (exceeding == 0)
    assert p_in_words(result).startswith("p\u00a0≤") == (exceeding == 0)


@pytest.mark.parametrize(
    ("runs", "said"), [(1, None), (2, "second"), (3, "third"), (11, "11th"), (12, "12th"), (21, "21st"), (22, "22nd")]
)
def test_alarms_in_a_row_are_counted(sample, changed, runs, said):
    data = sample(drift=True)
    quiet, alarm = data.history[0], data.history[-1]
    text = words(changed(data, history=(alarm, quiet, *[alarm] * runs)))
    assert ("in a row to raise" in text) == (said is not None)
    assert said is None or f"This is the {said} run in a row" in text


@pytest.mark.parametrize(
    ("level", "permutations", "needed"),
    [(0.05, 19, None), (0.05, 18, "19"), (0.01, 50, "99"), (0.01, 99, None), (0.001, 500, "999")],
)
def test_a_run_that_could_not_have_alarmed_says_so(sample, changed, level, permutations, needed):
    data = changed(sample(drift=False), level=level, permutations=permutations, p_value=0.5)
    text = words(data)
    assert ("could not have raised an alarm" in text) == (needed is not None)
    assert needed is None or f"needs at least {needed}." in text


@pytest.mark.parametrize(
    ("auc", "headline", "size"),
    [
        (0.498, "A small drift: the current window differs slightly", "The change is small"),
        (0.5199, "A small drift: the current window differs slightly", "The change is small"),
        (0.52, "Drift: the current window no longer looks", "The change is moderate"),
        (0.599, "Drift: the current window no longer looks", "The change is moderate"),
        (0.6, "A large drift: the current window no longer looks", "The change is large"),
        (1.0, "A large drift: the current window no longer looks", "The change is large"),
    ],
)
def test_the_size_of_a_drift_is_told_apart_from_its_p_value(sample, changed, auc, headline, size):
    data = changed(sample(), auc=auc)
    made = compose(data.result, data.history)
    assert made.headline.startswith(headline)
    assert size in made.lead
    assert "p\u00a0≤\u00a01/501" in made.lead
    assert ("changes too small to matter" in words(data)) == (auc < 0.52)


@pytest.mark.parametrize(("n", "m", "points"), [(1000, 1000, None), (999, 1000, 4), (120, 80, 13), (4, 4000, 43)])
def test_with_few_texts_the_size_is_called_uncertain(sample, changed, n, m, points):
    data = sample()
    data = changed(data, auc=0.511, **sized(data.result, n, m))
    text = words(data)
    if points is None:
        assert "is uncertain by" not in text
        assert "The change is small" in text
        return
    assert f"{n} texts against {m:,}, the 51.1% is uncertain by some {points} percentage points" in text
    assert "The change appears small" in text
    assert compose(data.result, data.history).headline.startswith("Drift: ")
    assert "too small to matter" not in text


def test_a_quiet_run_says_how_little_the_witness_tells(sample, changed):
    text = words(sample(drift=False))
    assert "than chance explains: of two texts, one old and one new, the witness tells" in text
    assert "in 50.3% of cases (50% is chance)" in text
    assert "than chance explains. The same texts were shuffled" in words(changed(sample(drift=False), auc=math.nan))


def test_an_interval_that_begins_at_0_is_mentioned(sample, changed):
    assert "begins at 0" not in words(sample())
    assert "interval of MMD² begins at 0" in words(changed(sample(), mmd2_interval=(0.0, 1e-3)))
    assert "begins at 0" not in words(changed(sample(), mmd2_interval=None))


def cross(changed, data, **values):
    made = {"method": "cross", "permutations": 0, "permuted": np.zeros(0), "statistic": 4.214, "threshold": 1.66}
    return changed(data, **(made | values))


@pytest.mark.parametrize(
    ("p_value", "shown", "said"),
    [
        (0.001, "0.0010", "p = 0.0010"),
        (1.0, "1", "p = 1"),
        (3e-8, f"3.0{power_of_ten(-8)}", f"p = 3.0{power_of_ten(-8)}"),
        (2.2e-308, "< 10⁻⁹", "p < 10⁻⁹"),
    ],
)
def test_a_p_value_without_permutations_counts_none(sample, changed, p_value, shown, said):
    data = cross(changed, sample(), p_value=p_value)
    assert not is_smallest(data.result)
    assert p_text(data.result) == shown
    text = words(data)
    assert f"their scores differ by 4.21 standard errors ({said})" in text
    assert "huffle" not in text
    assert "1/1" not in text


@pytest.mark.parametrize(("threshold", "warned"), [(1.66, False), (math.inf, True)])
def test_a_cross_run_without_a_threshold_could_not_have_alarmed(sample, changed, threshold, warned):
    data = cross(changed, sample(drift=False), threshold=threshold, p_value=0.4, level=1e-4)
    assert ("could not have raised an alarm: no statistic would do at the 0.01% level" in words(data)) == warned
