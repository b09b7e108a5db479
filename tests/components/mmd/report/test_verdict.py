from __future__ import annotations

import pytest

from driftline.components.mmd.report.verdict import compose, is_smallest, p_in_words, reached


def words(data) -> str:
    made = compose(data.result, data.history)
    return " ".join((made.headline, made.lead, *made.notes)).replace("\u00a0", " ")


def test_drift_says_so_with_the_smallest_p_value_in_words(sample):
    data = sample(drift=True)
    said = words(data)
    assert compose(data.result, data.history).tone == "drift"
    assert "no longer looks like the reference" in said
    assert "Shuffled 500 times" in said
    assert "never came to lie as far apart" in said
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
