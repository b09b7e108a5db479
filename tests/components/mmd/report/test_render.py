from __future__ import annotations

import dataclasses
import itertools
import math
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest

from driftline.components.mmd.report.data import ReportData
from driftline.components.mmd.report.render import render_report
from driftline.components.mmd.result import MovedText

VOID = {"meta", "link", "br", "img", "input", "hr"}
LOADING = {"src", "href", "srcset", "action", "data", "poster", "background", "xlink:href", "style"}
NASTY = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&</td>\u202eabc مرحبا \U0001f469\u200d\U0001f467 {{ 7*7 }}"
)


class Document(HTMLParser):
    """Reads a document strictly: every element must be closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), "an attribute stands twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(data: ReportData) -> Document:
    """Render, and hold the document to what holds for each: well-formed, alone, and without NaN."""
    text = render_report(data)
    assert text.startswith("<!DOCTYPE html>")
    document = Document(text)
    assert len(text.encode("utf-8")) < 1_000_000
    assert not {tag for tag, _ in document.tags} & {"script", "link", "iframe", "object", "embed", "img", "base"}
    for tag, attributes in document.tags:
        assert not set(attributes) & LOADING, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        assert "://" not in " ".join(value or "" for value in attributes.values())
    assert not re.search(r"\b(?i:nan|inf|infinity)\b|\bNone\b", document.text())
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    return document


def test_the_report_holds_everything_in_order(sample):
    text = read(sample()).text()
    landmarks = [
        "A large drift: the current window no longer looks like the reference",
        "Witness AUC 61.3%",
        "MMD² 0.00321 95% interval 0.00281 to 0.00367",
        "p-value ≤ 0.0020 p ≤ 1/501, the smallest that 500 permutations can give",
        "Threshold 0.000",
        "at the 5% level; MMD² is",
        "of two texts, one old and one new, the witness tells which is which in 61.3% of cases (50% is chance)",
        "Reference sample 1,000 of 48,210 texts",
        "Current sample 1,000 of 6,127 texts",
        "Kernel Gaussian \N{GREEK SMALL LETTER GAMMA} = 0.571",
        "Method exact every pair of texts is compared",
        "Could it be chance?",
        "Where the two samples lie",
        "How much the projection keeps",
        "Over time",
        "The texts that moved most",
        "New: most typical of the current window",
        "review-4021",
        "Gone: most typical of the reference",
        "film-5864",
        "What was run",
        "Method exact , chosen by size (2,000 rows are within the 200,000 of the exact method): every pair of texts is",
        "gs://reviews/embeddings/2026-02",
        "sha256:9f2c41d07be8…",
        "Kernel rbf",
        "Seed 17",
        "95% interval 0.00281 to 0.00367",
        "Witness AUC 0.613",
        "kernel 8 1 min 36 s",
        "Total 1 min 52 s",
        "This report calls a change small below 52%, large from 60% on",
        "Gretton et al.",
        "Lemma 6",
    ]
    at = 0
    for landmark in landmarks:
        at = text.find(landmark, at)
        assert at >= 0, landmark


def test_the_page_is_in_english_and_its_headings_descend_by_one(sample):
    document = read(sample())
    assert document.named("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in document.named("meta")
    levels = [int(tag[1]) for tag, _ in document.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_every_drawing_has_a_role_and_words_or_is_hidden(sample):
    drawings = read(sample()).named("svg")
    images = [d for d in drawings if d.get("role") == "img"]
    assert len(images) == 10  # five figures in two sizes
    assert all(d["aria-labelledby"] and d["aria-describedby"] for d in images)
    assert all(d.get("aria-hidden") == "true" for d in drawings if d not in images)


def test_the_same_data_give_the_same_bytes(sample):
    assert render_report(sample()) == render_report(sample())


def test_the_style_sheet_loads_nothing():
    css = resources.files("driftline.components.mmd.report").joinpath("report.css").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|@font-face|http|expression", css)
    assert "</" not in css


def test_foreign_texts_stand_as_text(sample, changed):
    side = sample().result.reference
    nasty = dataclasses.replace(side, uri=NASTY, model=NASTY, revision=NASTY, digest=NASTY)
    moved = (MovedText(NASTY, NASTY, -0.5, NASTY), MovedText(NASTY, "reference", 0.5, NASTY))
    steps = tuple(dataclasses.replace(step, name=NASTY) for step in sample().result.steps)
    history = tuple(dataclasses.replace(run, created=NASTY) for run in sample().history)
    kernels = tuple(dataclasses.replace(kernel, name=NASTY) for kernel in sample(kernels=8).result.kernels)
    history = tuple(dataclasses.replace(run, kernel=NASTY) for run in history)
    data = changed(
        sample(kernels=8),
        reference=nasty,
        moved=moved,
        steps=steps,
        kernels=kernels,
        created=NASTY,
        history=history,
        method=NASTY,
        method_reason=NASTY,
        combination=NASTY,
    )
    text = read(data).text()
    assert text.count(NASTY) >= 4
    assert text.count(NASTY[:20]) >= 40
    assert "49" not in text[text.find("{{") : text.find("}}")]


def test_a_text_is_cut_and_its_rest_is_nowhere_in_the_file(sample, changed):
    moved = (MovedText("a", "current", -0.5, "word " * 2_000_000 + "hidden-tail"),)
    data = changed(sample(), moved=moved)
    whole = render_report(data)
    text = read(data).text()
    longest = max(re.findall(r"(?:word ?)+", text), key=len)
    assert 290 <= len(longest) <= 301
    assert "hidden-tail" not in whole
    assert whole.count("word") < 70


def without_texts(data: ReportData, sides: tuple[str, ...] = ("reference", "current")) -> tuple[MovedText, ...]:
    return tuple(
        dataclasses.replace(moved, text=None) if moved.sample in sides else moved for moved in data.result.moved
    )


@pytest.mark.parametrize(
    ("carried", "said"),
    [
        (
            (),
            "No texts are shown: the datasets carry no columns beside ids and vectors. Look the texts up by their ids.",
        ),
        (
            ("title",),
            "No texts are shown: the datasets carry the column title, and none named text. If it holds the texts, "
            "name it by text_column.",
        ),
        (
            ("stars", "title"),
            "No texts are shown: the datasets carry the columns stars and title, none of them named text. Name the one "
            "with the texts by text_column.",
        ),
        (
            ("a", "b", "c"),
            "No texts are shown: the datasets carry the columns a, b and c, none of them named text. Name the one with "
            "the texts by text_column.",
        ),
        (tuple("abcdefgh"), "the columns a, b, c, d, e, f, g and h, none of them named text."),
        (tuple("abcdefghi"), "the columns a, b, c, d, e, f, g, h and 1 more, none of them named text."),
        (tuple(f"c{k}" for k in range(12)), "the columns c0, c1, c2, c3, c4, c5, c6, c7 and 4 more, none of them"),
    ],
)
def test_without_texts_the_columns_that_there_are_stand_in_their_place(sample, changed, carried, said):
    data = sample()
    text = read(changed(data, moved=without_texts(data), text_column="", carried=carried)).text().replace(" ,", ",")
    assert text.count(said) == 1
    assert text.count("No texts are shown") == 1
    assert "(no text)" not in text
    assert "does not carry it" not in text
    assert "Column of the texts" not in text


def test_names_of_columns_are_escaped_and_cut(sample, changed):
    data = sample()
    names = (NASTY, "c" * 100_000, "\u202egnol")
    text = read(changed(data, moved=without_texts(data), text_column="", carried=names)).text()
    assert NASTY[:30] in text
    assert "c" * 50 in text
    assert "c" * 70 not in text


@pytest.mark.parametrize("column", ["text", "title", NASTY])
def test_with_texts_nothing_is_said_of_columns(sample, changed, column):
    text = read(changed(sample(), text_column=column, carried=("stars", column))).text()
    assert f"Column of the texts {column[:60]}" in text
    for words in ("No texts are shown", "(no text)", "does not carry it", "none of them named"):
        assert words not in text


@pytest.mark.parametrize(("side", "other"), [("reference", "current"), ("current", "reference")])
def test_of_a_side_without_the_column_no_more_is_said_than_is_known(sample, changed, side, other):
    """Whether its rows are empty in that column or it has none: what is said is true of both."""
    data = sample()
    text = read(changed(data, moved=without_texts(data, (side,)), text_column="text", carried=("text",))).text()
    assert "No texts are shown" not in text
    assert text.count("the column text is empty in these rows, or their dataset does not carry it.") == 1
    shown = {moved.text for moved in data.result.moved if moved.sample == other}
    assert all(words in text for words in shown)


def test_a_row_without_a_text_among_others_says_why(sample, changed):
    data = sample()
    moved = (dataclasses.replace(data.result.moved[0], text=None), *data.result.moved[1:])
    text = read(changed(data, moved=moved, text_column="title", carried=("stars", "title"))).text()
    assert text.count("(no text)") == 1
    assert text.count("the column title is empty in that row, or the dataset it is from does not carry it.") == 1


def test_an_empty_text_is_one(sample, changed):
    data = sample()
    moved = (dataclasses.replace(data.result.moved[0], text=""), *data.result.moved[1:])
    text = read(changed(data, moved=moved, text_column="text", carried=("text",))).text()
    assert text.count("(empty text)") == 1
    assert "does not carry it" not in text


def test_the_strongest_texts_come_first_and_the_tables_are_capped(sample, changed):
    moved = tuple(MovedText(f"n{k}", "current", -k / 100, "x") for k in range(80, 0, -1))
    text = read(changed(sample(), moved=moved)).text()
    shown = [int(k) for k in re.findall(r"\bn(\d+)\b", text)]
    assert shown == list(range(80, 30, -1))
    assert "30 more in the result's JSON." in text
    assert "No such text was found." in text


def test_no_moved_texts(sample, changed):
    assert "was not asked to list texts" in read(changed(sample(), moved=())).text()


def test_the_first_run_says_when_the_trend_starts(sample):
    assert "the trend starts with the second" in read(sample(runs=1)).text()


def test_no_projection_is_said_in_a_sentence(sample, changed):
    data = changed(sample(), components=0, explained_variance_ratio=())
    document = read(data)
    assert "compared whole, without a projection" in document.text()
    assert not [d for d in document.named("svg") if "variance" in (d.get("aria-labelledby") or "")]


def test_the_newest_runs_stand_as_numbers(sample):
    text = read(sample()).text()
    assert "14 March 2026, 06:00 UTC 61.3% 0.00321 0.00281 to 0.00367 Gaussian, 0.571 0.0020 ▲ alarm" in text


def test_different_models_are_pointed_out(sample, changed):
    data = sample()
    assert "different models" not in read(data).text()
    other = dataclasses.replace(data.result.current, revision="another")
    assert "come from different models or revisions" in read(changed(data, current=other)).text()


@pytest.mark.parametrize("value", [-0.02, -1e-9, 0.0, 1e-9, 1e12, 1.7e308, math.nan, math.inf])
@pytest.mark.parametrize("threshold", [1e-9, 0.0, -1e-4, 1e12, math.nan, math.inf])
@pytest.mark.parametrize("kernels", [1, 8])
def test_extreme_values_do_not_break_the_report(sample, changed, value, threshold, kernels):
    data = sample(permutations=19, points=5, runs=3, kernels=kernels)
    wild = {"mmd2": value, "mmd2_interval": (value, threshold), "auc": value, "gamma": value}
    last = dataclasses.replace(data.history[-1], p_value=threshold, **wild)
    findings = tuple(
        dataclasses.replace(kernel, gamma=value, mmd2=value, p_value=threshold, share=value)
        for kernel in data.result.kernels
    )
    for method in ("exact", "cross", "features"):
        read(
            changed(
                data,
                method=method,
                statistic=value,
                threshold=threshold,
                kernels=findings,
                mmd2=value,
                mmd2_interval=(value, threshold),
                auc=value,
                feature_error_bound=threshold,
                p_value=math.nan if math.isnan(value) else data.result.p_value,
                history=(*data.history[:-1], last),
                moved=tuple(dataclasses.replace(m, witness=m.witness * 1e-300) for m in data.result.moved),
            )
        )


@pytest.mark.parametrize(
    ("permutations", "points", "components"), [(19, 1, 1), (10_000, 5000, 2), (500, 1000, 1024), (99, 2, 0)]
)
def test_extreme_sizes_do_not_break_the_report(sample, changed, permutations, points, components):
    data = sample(permutations=permutations, points=points)
    ratios = tuple(1 / components for _ in range(components))
    history = tuple(data.history[k % 12] for k in range(1000))
    text = "<" * 400
    moved = tuple(MovedText("'" * 400, "current", (-1) ** k * 0.1, text) for k in range(1000))
    read(changed(data, components=components, explained_variance_ratio=ratios, history=history, moved=moved))


def test_empty_samples_are_said_in_a_sentence(sample, changed):
    empty = np.zeros((0, 2), dtype=np.float32)
    data = changed(sample(), reference_points=empty, current_points=empty, permuted=np.zeros(0), steps=())
    text = read(data).text()
    assert "There are no points to draw." in text
    assert "There is no finite permuted statistic to draw." in text


def palettes() -> dict[str, dict[str, str]]:
    css = resources.files("driftline.components.mmd.report").joinpath("report.css").read_text(encoding="utf-8")
    blocks = [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", body)) for body in re.findall(r":root \{([^}]*)\}", css)]
    return dict(zip(("light", "dark", "print"), blocks, strict=True))


def contrast(a: str, b: str) -> float:
    """Return the contrast ratio of WCAG 2.2, 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", ["light", "dark", "print"])
def test_colours_have_the_contrast_of_wcag_aa(palette):
    colours = palettes()[palette]
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    for ground in ("page", "surface", "alarm-tint", "quiet-tint"):
        for text in ("ink", "muted"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for text, ground in (("alarm", "alarm-tint"), ("quiet", "quiet-tint"), ("alarm", "surface"), ("alarm", "page")):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for mark in ("reference", "current", "bar", "axis", "alarm"):
        assert contrast(colours[mark], colours["surface"]) >= 3, mark
