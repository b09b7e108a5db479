from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from driftline.components.kernel.theory.families import KERNEL_NAMES
from driftline.components.mmd.report.figures import kernels
from driftline.components.mmd.report.figures.kernels import GAMMA, MAX_KERNELS, kernel_table
from driftline.components.mmd.report.formats import power_of_ten
from driftline.components.mmd.report.render import render_report
from driftline.components.mmd.report.verdict import compared_figures, key_figures, quantity
from driftline.components.mmd.result import KernelFinding


def page(data) -> str:
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", render_report(data), flags=re.DOTALL)
    return " ".join(text.replace("&nbsp;", " ").replace("&#39;", "'").replace("\u00a0", " ").split())


def figure(data, label: str):
    figures = (*key_figures(data.result), *compared_figures(data.result))
    (found,) = (item for item in figures if item.label == label)
    return found


def led_by(changed, data, place: int):
    """Return the data with another leading kernel, which takes its share."""
    shares = [0.02] * len(data.result.kernels)
    shares[place] = 1 - 0.02 * (len(shares) - 1)
    kernels = tuple(
        dataclasses.replace(kernel, share=part) for kernel, part in zip(data.result.kernels, shares, strict=True)
    )
    return changed(data, kernels=kernels, leading_kernel=place)


def test_one_kernel_needs_no_table(sample):
    data = sample()
    assert kernel_table(data.result) is None
    assert "Which kernels saw it" not in page(data)
    assert figure(data, "Kernel").value == "Gaussian"
    assert quantity(data.result) == "MMD²"


def test_a_search_lists_its_kernels_from_narrow_to_wide_and_marks_the_leading_one(sample, changed):
    data = sample(kernels=8)
    shuffled = changed(data, kernels=data.result.kernels[::-1], leading_kernel=1)
    for made in (data, shuffled):
        table = kernel_table(made.result)
        assert [row.leading for row in table.rows].count(True) == 1
        (leading,) = (row for row in table.rows if row.leading)
        assert (leading.name, leading.share, leading.mmd2) == ("Laplace", "53.0%", "0.00321")
        for family in ("Gaussian", "Laplace"):
            lengths = [float(row.length) for row in table.rows if row.name == family]
            assert len(lengths) == 4
            assert lengths == sorted(lengths)
        assert table.hidden == 0
    text = page(data)
    assert "Which kernels saw it" in text
    assert f"Laplace , {GAMMA} = 1.14 leading 0.936 53.0% 0.00321 0.0020" in text
    assert "Own p, not corrected" in text
    assert "a soft maximum of the kernels' MMD², each in its own standard deviations" in text
    assert figure(data, "Leading kernel").note == f"{GAMMA} = 1.14; 53.0% of the evidence of 8 kernels"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (0, "A narrow kernel leads: the difference lies in fine structure"),
        (1, "A kernel of middling width leads"),
        (2, "A kernel of middling width leads"),
        (3, "A wide kernel leads: the difference is an overall shift"),
        (4, "A narrow kernel leads"),
        (7, "A wide kernel leads"),
    ],
)
def test_the_leading_width_is_explained(sample, changed, place, said):
    assert said in page(led_by(changed, sample(kernels=8), place))


@pytest.mark.parametrize(
    ("name", "said"),
    [("linear", "a shift of the mean, and nothing else"), ("polynomial", "the spread or the skewness")],
)
def test_kernels_of_the_product_have_no_length(sample, changed, name, said):
    data = sample(kernels=8)
    lone = dataclasses.replace(data.result.kernels[0], name=name)
    data = led_by(changed, changed(data, kernels=(lone, *data.result.kernels[1:])), 0)
    assert said in page(data)
    assert kernel_table(data.result).rows[0].length == ""


def test_every_family_has_a_name_to_be_read():
    assert set(kernels._NAMES) == set(KERNEL_NAMES)


def test_a_lone_kernel_of_its_family_is_neither_narrow_nor_wide(sample, changed):
    data = sample(kernels=8)
    lone = dataclasses.replace(data.result.kernels[0], name="imq")
    data = led_by(changed, changed(data, kernels=(lone, *data.result.kernels[1:])), 0)
    assert "width leads" not in page(data)
    assert not re.search(r"A (narrow|wide) kernel leads", page(data))


def test_without_drift_the_shares_mean_nothing(sample):
    text = page(sample(drift=False, kernels=8))
    assert "which kernel deviated most by chance" in text
    assert not re.search(r"(narrow|wide) kernel leads|width leads", text)


def test_the_table_keeps_the_kernels_with_the_largest_shares(sample, changed):
    count = MAX_KERNELS + 25
    shares = np.arange(1, count + 1) / (count * (count + 1) / 2)
    kernels = tuple(KernelFinding("rbf", float(k + 1), 1 / count, 1e-3, 0.01, float(s)) for k, s in enumerate(shares))
    data = changed(sample(kernels=8), kernels=kernels, leading_kernel=0)  # the least share, and still not left out
    table = kernel_table(data.result)
    assert (len(table.rows), table.hidden) == (MAX_KERNELS, 25)
    assert [float(row.gamma) for row in table.rows] == [*range(count, count - MAX_KERNELS + 1, -1), 1]
    assert "25 more, with smaller shares" in page(data)


def test_a_combined_statistic_is_called_one(sample):
    data = sample(kernels=8)
    text = page(data)
    assert quantity(data.result) == "combined statistic"
    assert "the combined statistic is 9.41, a number without a unit" in figure(data, "Threshold").note
    assert "Bars: the combined statistic of 500 random shuffles" in text
    assert "Permutation distribution of the combined statistic" in text
    assert "The threshold is the combined statistic above which" in text
    assert "Combined statistic 9.41" in text
    assert "for all 8 kernels" in text
    assert "tend to be too high" in text
    assert "tend to be too high" not in page(sample())


@pytest.mark.parametrize("kernels", [1, 8])
def test_cross_has_a_sentence_instead_of_a_histogram(sample, changed, kernels):
    data = changed(
        sample(kernels=kernels),
        method="cross",
        method_reason="asked for: half of the pairs",
        combination="sum" if kernels > 1 else "",
        permutations=0,
        permuted=np.zeros(0),
        statistic=5.32,
        threshold=1.66,
        p_value=5.2e-8,
    )
    text = page(data)
    assert "This method shuffles no texts" in text
    assert "histogram-wide" not in render_report(data)
    assert "shuffles that reach" not in text
    assert "Shekhar et al." in text
    assert "Permutations none" in text
    assert figure(data, "p-value").value == f"5.2{power_of_ten(-8)}"
    assert "the studentised statistic is 5.32, standard errors" in figure(data, "Threshold").note
    assert "Method cross , asked for: half of the pairs ." in text
    assert "1/1" not in text
    assert ("the sum of the kernels" in text) == (kernels == 8)


@pytest.mark.parametrize(("mmd2", "unknown"), [(3.21e-3, False), (2e-4, True), (-2e-4, True)])
def test_features_say_their_error(sample, changed, mmd2, unknown):
    data = changed(sample(kernels=8), method="features", mmd2=mmd2, feature_error_bound=4.1e-4)
    text = page(data)
    assert "the random features add an error of up to 0.00041 (99%)" in figure(data, "MMD²").note
    assert "In 99 of 100 draws of the random features their error in MMD² is at most 0.00041" in text
    assert ("as large as MMD² itself, so its size is not known" in text) == unknown
    assert "Error of random features 0.00041" in text
    assert "andom features" not in page(sample(kernels=8))


def test_what_has_no_interval_says_so(sample, changed):
    data = changed(sample(), mmd2_interval=None)
    assert figure(data, "MMD²").note == "no interval: it needs four texts on either side"
    assert "95% interval none" in page(data)


def test_a_share_above_chance_without_drift_may_be_chance(sample, changed):
    quiet = sample(drift=False)
    assert (
        "No drift was found, so a value above 50% may be chance" in figure(changed(quiet, auc=0.6), "Witness AUC").note
    )
    assert "No drift" not in figure(changed(quiet, auc=0.503), "Witness AUC").note
    assert "No drift" not in figure(sample(), "Witness AUC").note


def test_mmd2_below_0_is_explained(sample, changed):
    assert "below 0, like about half of all unbiased estimates" in figure(changed(sample(), mmd2=-1e-5), "MMD²").note
