"""The report in Chromium, inside a sandboxed frame as the Kubeflow Pipelines UI embeds it."""

from __future__ import annotations

import dataclasses
import html
import re
import socket

import pytest

from driftline.components.mmd.report.render import render_report

WIDTHS = [360, 800, 1200]


def framed(tmp_path, document: str):
    """Write a page that shows a document as the Kubeflow Pipelines UI shows HTML artifacts."""
    page = tmp_path / "frame.html"
    page.write_text(
        "<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>run</title>"
        "<style>body { margin: 0 } iframe { border: 0; width: 100%; height: 600px; display: block }</style></head>"
        f'<body><iframe title=report sandbox="allow-scripts" srcdoc="{html.escape(document)}"></iframe></body></html>',
        encoding="utf-8",
    )
    return page


def outside(requests: list[str]) -> list[str]:
    return [url for url in requests if not re.match(r"(file:///.*frame\.html|about:srcdoc)$", url)]


def colour(value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", value)[:3])


def overflow(browser) -> list[str]:
    """Return what stands beyond the window's right edge, scrolling boxes and hidden things aside."""
    return browser.evaluate("""
        [...document.body.querySelectorAll('*')].filter(e => {
            const box = e.getBoundingClientRect();
            return box.width > 0 && box.right > innerWidth + 0.5 && !e.closest('.scroll');
        }).map(e => e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + e.getBoundingClientRect().right)
    """)


@pytest.mark.parametrize("kernels", [1, 8])
@pytest.mark.parametrize("drift", [True, False])
def test_the_frame_is_silent_and_asks_for_nothing(browser, tmp_path, sample, drift, kernels):
    browser.open(framed(tmp_path, render_report(sample(drift=drift, kernels=kernels))))
    assert "reference" in browser.evaluate("document.querySelector('main').innerText")
    assert browser.evaluate("self.origin") == "null"
    assert browser.complaints() == []
    assert outside(browser.requests()) == []


def test_a_page_that_complains_and_asks_is_noticed(browser, tmp_path):
    with socket.socket() as bound:
        # Bound, but nobody listens: the request is made and fails.
        bound.bind(("127.0.0.1", 0))
        picture = f"http://127.0.0.1:{bound.getsockname()[1]}/x.png"
        script = "<script>console.error('no'); fail()</script>"
        browser.open(framed(tmp_path, f"<body><main>x</main><img src='{picture}'>{script}"))
        assert set(outside(browser.requests())) == {picture}
        assert len(browser.complaints()) >= 2


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("drift", [True, False])
def test_no_width_scrolls_sideways(browser, tmp_path, sample, changed, width, drift):
    data = sample(drift=drift)
    long = "https-like://" + "x" * 400
    moved = tuple(
        type(m)(long, m.sample, m.witness, "W" * 400 if k % 2 else m.text) for k, m in enumerate(data.result.moved)
    )
    browser.emulate(width)
    kernels = tuple(dataclasses.replace(kernel, name="k" * 60) for kernel in sample(kernels=8).result.kernels)
    for found in (data.result.kernels, kernels, sample(drift=drift, kernels=8).result.kernels):
        browser.open(framed(tmp_path, render_report(changed(data, moved=moved, kernels=found))))
        fits(browser, width)


def fits(browser, width):
    browser.evaluate("document.querySelector('details').open = true")
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    assert overflow(browser) == []


def test_an_overflow_would_be_noticed(browser, tmp_path):
    browser.emulate(360)
    browser.open(framed(tmp_path, "<!DOCTYPE html><body><main><p style='width: 500px'>x</p></main></body>"))
    assert browser.evaluate("document.documentElement.scrollWidth") > 360
    assert len(overflow(browser)) == 1


@pytest.mark.parametrize(("width", "shown", "hidden"), [(360, "narrow", "wide"), (1200, "wide", "narrow")])
def test_each_width_has_its_drawings_with_legible_letters(browser, tmp_path, sample, width, shown, hidden):
    browser.emulate(width)
    browser.open(framed(tmp_path, render_report(sample())))
    heights = "[...document.querySelectorAll('.{}')].map(e => e.getBoundingClientRect().height)"
    assert browser.evaluate(heights.format(hidden)) == [0] * 5
    assert min(browser.evaluate(heights.format(shown))) > 150
    # Of a letter's box: about 1.2 times its size.
    letters = f"[...document.querySelectorAll('.{shown} text')].map(e => e.getBoundingClientRect().height)"
    assert min(browser.evaluate(letters)) >= 11


def test_labels_of_a_drawing_do_not_cover_one_another(browser, tmp_path, sample, changed):
    for k, statistic in enumerate((3.21e-3, 3.1e-5, -0.004, 2e-4, 1e9, 9.41)):
        data = sample(kernels=8, runs=28) if statistic == 9.41 else sample()
        for width in (360, 1200):
            browser.emulate(width)
            browser.open(framed(tmp_path, render_report(changed(data, statistic=statistic))))
            pairs = browser.evaluate("""
                [...document.querySelectorAll('.plot')].filter(s => s.getBoundingClientRect().width).flatMap(s => {
                    const texts = [...s.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
                    return texts.flatMap(([a, p], i) => texts.slice(i + 1).filter(([b, q]) =>
                        p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 4 && q.top < p.bottom - 4
                    ).map(([b]) => a + ' / ' + b));
                })
            """)
            assert pairs == [], (k, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bars_of_the_kernels_are_as_long_as_their_shares(browser, tmp_path, sample, width):
    data = sample(kernels=8)
    browser.emulate(width)
    browser.open(framed(tmp_path, render_report(data)))
    lengths = browser.evaluate("""
        [...document.querySelectorAll('.share-bar')].map(bar => {
            const [ground, share] = [...bar.children].map(e => e.getBoundingClientRect().width);
            return [ground, share / ground];
        })
    """)
    assert min(ground for ground, _ in lengths) > 60
    assert [share for _, share in lengths] == pytest.approx([kernel.share for kernel in data.result.kernels], abs=0.01)


def test_dark_mode_has_a_dark_ground_and_light_letters(browser, tmp_path, sample):
    page = framed(tmp_path, render_report(sample()))
    seen = {}
    for dark in (False, True):
        browser.open(page)
        browser.emulate(1200, dark=dark)
        style = "getComputedStyle(document.body)"
        seen[dark] = [colour(browser.evaluate(f"{style}.{name}")) for name in ("backgroundColor", "color")]
    browser.emulate(1200)
    (light_ground, light_ink), (dark_ground, dark_ink) = seen[False], seen[True]
    assert min(light_ground) > 240
    assert max(light_ink) < 60
    assert max(dark_ground) < 40
    assert min(dark_ink) > 200


def test_print_is_light_even_in_dark_mode(browser, tmp_path, sample):
    browser.open(framed(tmp_path, render_report(sample())))
    browser.emulate(1000, dark=True, media="print")
    ground = colour(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    browser.emulate(1000)
    assert ground == (255, 255, 255)
