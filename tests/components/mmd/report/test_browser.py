"""The report in Chromium, inside a sandboxed frame as the Kubeflow Pipelines UI embeds it.

Seen in the UI of Kubeflow Pipelines 2.17.0: the frame is 447 px wide in a run's side panel, 300 (298 within its border)
in "Compare runs" and 1,110 in the window that pops out; it is about 600 px high, and allows scripts and nothing else.
"""

from __future__ import annotations

import dataclasses
import html
import re
import socket
from html.parser import HTMLParser

import pytest

from driftline.components.mmd.report.render import render_report, render_skipped
from tests.components.mmd.report.samples import change, make_data, make_skipped

WIDTHS = [360, 800, 1200]
PANEL, COMPARE, COMPARE_WITHIN, POPPED_OUT = 447, 300, 298, 1110
HEIGHT = 598
SCROLLBAR = 15  # of Chromium where it takes room from the page, as it does on most desks but not in these tests


def framed(tmp_path, document: str, width: str = "100%", height: int = 600):
    """Write a page that shows a document as the Kubeflow Pipelines UI shows HTML artifacts."""
    page = tmp_path / "frame.html"
    page.write_text(
        "<!DOCTYPE html><html lang=en><head><meta charset=utf-8><title>run</title>"
        "<style>body { margin: 0 } iframe { border: 0; display: block }</style></head>"
        f'<body><iframe title=report style="width: {width}; height: {height}px" sandbox="allow-scripts"'
        f' srcdoc="{html.escape(document)}"></iframe></body></html>',
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


LONG = "https-like://" + "x" * 400
HEBREW = "המשלוח הגיע מאוחר (2 ימים), v1.2! "


def foreign(words: str, text: str | None) -> str:
    """Return the report of a search in which all that came from outside is the same words."""
    data = make_data(kernels=8)
    sides = {
        side: dataclasses.replace(
            getattr(data.result, side),
            uri=words,
            asked=words + "?",
            model=words,
            revision=words,
            digest=words,
            missing=(words,) * 5,
        )
        for side in ("reference", "current")
    }
    moved = tuple(dataclasses.replace(moved, id=words, text=text) for moved in data.result.moved)
    kernels = tuple(dataclasses.replace(kernel, name=words) for kernel in data.result.kernels)
    steps = tuple(dataclasses.replace(step, name=words) for step in data.result.steps)
    named = dict.fromkeys(("method", "method_reason", "combination", "run", "job", "as_of", "created"), words)
    column = "" if text is None else words
    return render_report(
        change(
            data, moved=moved, kernels=kernels, steps=steps, **sides, **named, text_column=column, carried=(words,) * 12
        )
    )


def by_method(method: str, drift: bool) -> str:
    """Return the report of a run with another method, and the longest notes beside its figures."""
    data = make_data(drift=drift, kernels=8)
    wordy = {} if drift else {"mmd2": -3.15e-8, "mmd2_interval": (0.0, 1.23e-8), "auc": 0.624}
    return render_report(
        change(data, method=method, permutations=0 if method == "cross" else 500, feature_error_bound=2.34e-4, **wordy)
    )


PAGES = {
    "a search that found drift": lambda: render_report(make_data(kernels=8, runs=28)),
    "a search that found none": lambda: render_report(make_data(drift=False, kernels=8)),
    "one kernel": lambda: render_report(make_data()),
    "a small drift": lambda: render_report(change(make_data(), auc=0.511)),
    "the first run": lambda: render_report(make_data(drift=False, runs=1)),
    "cross": lambda: by_method("cross", True),
    "features": lambda: by_method("features", True),
    "features without drift": lambda: by_method("features", False),
    "names without a space": lambda: foreign(LONG, "W" * 400),
    "ids without texts": lambda: foreign(LONG, None),
    "from right to left": lambda: foreign(HEBREW * 12, HEBREW * 30),
    "skipped": lambda: render_skipped(make_skipped()),
    "skipped, names without a space": lambda: render_skipped(make_skipped(LONG, LONG)),
    "skipped, from right to left": lambda: render_skipped(make_skipped(HEBREW * 6, HEBREW * 6)),
}
REPORTS = [name for name in PAGES if "skipped" not in name]


def shown(browser, tmp_path, document: str, width: int) -> None:
    """Show a document in a frame of the UI's: of this width, on a page that is wider. One that is open is resized."""
    if browser.shown == document:
        browser.resize_frame(width)
    else:
        browser.emulate(1440)
        browser.open(framed(tmp_path, document, f"{width}px", HEIGHT))
        browser.shown = document
    assert browser.evaluate("[innerWidth, innerHeight, self.origin]") == [width, HEIGHT, "null"]


def sideways(browser) -> list[str]:
    """Return by what a document can be scrolled sideways, or would be but that it lies to the left or is cut off."""
    return browser.evaluate("""
        (() => {
            const page = document.documentElement;
            const name = e => e.tagName + '.' + (e.getAttribute('class') || '');
            const scrolls = page.scrollWidth > page.clientWidth ? ['the page, to ' + page.scrollWidth] : [];
            const cards = [...document.querySelectorAll('.verdict, .key-figures, .key-figures > div')];
            const cut = cards.filter(e => e.scrollWidth > e.clientWidth).map(e => 'in ' + name(e));
            const out = [...document.body.querySelectorAll('*')].filter(e => {
                const box = e.getBoundingClientRect(), beyond = box.right > page.clientWidth + 0.5 || box.left < -0.5;
                return box.width > 1 && beyond && !e.closest('.scroll');
            });
            return [...scrolls, ...cut, ...out.map(name)];
        })()
    """)


@pytest.mark.parametrize("page", PAGES)
def test_no_frame_of_the_ui_scrolls_sideways(browser, tmp_path, page):
    document = PAGES[page]()
    for width in (PANEL, COMPARE, COMPARE_WITHIN, POPPED_OUT):
        for room in (width, width - SCROLLBAR):
            shown(browser, tmp_path, document, room)
            browser.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
            assert sideways(browser) == [], room


@pytest.mark.parametrize(
    "body",
    [
        "<main><p style='width: 320px'>x</p></main>",
        "<main><p style='margin-left: -40px'>x</p></main>",
        "<dl class=key-figures style='overflow: hidden; width: 90px'><b style='margin-left: 80px'>0.0123</b></dl>",
    ],
)
def test_what_scrolls_or_is_cut_off_would_be_noticed(browser, tmp_path, body):
    shown(browser, tmp_path, f"<!DOCTYPE html><body style='margin: 0'>{body}</body>", COMPARE)
    assert sideways(browser)


def places(browser) -> dict[str, tuple[float, float]]:
    """Return where the parts of the report's head begin and end, in px from the top, by class or figure."""
    return {
        name: (top, bottom)
        for name, top, bottom in browser.evaluate("""
            [...document.querySelectorAll('.badge, h1, .lead, .key-figures > div')].map(e => {
                const box = e.getBoundingClientRect(), label = e.querySelector('dt');
                return [label ? label.textContent : e.className || e.tagName, box.top, box.bottom];
            })
        """)
    }


@pytest.mark.parametrize("page", REPORTS)
def test_the_verdict_and_its_figures_are_on_the_first_screen(browser, tmp_path, page):
    document = PAGES[page]()
    for width in (PANEL, PANEL - SCROLLBAR, POPPED_OUT):
        shown(browser, tmp_path, document, width)
        at = places(browser)
        order = [at[name] for name in ("badge", "H1", "Witness AUC", "lead")]
        assert order == sorted(order)
        for figure in ("Witness AUC", "MMD²", "p-value"):
            assert at["H1"][1] <= at[figure][0] < at[figure][1] <= HEIGHT, (width, figure)
            assert at[figure][1] <= at["lead"][0]
        notes = browser.evaluate("[...document.querySelectorAll('.first .note')].map(e => e.innerText)")
        assert len(notes) == 4
        assert notes[1].startswith("95% interval ")
    for width in (COMPARE, COMPARE_WITHIN, COMPARE_WITHIN - SCROLLBAR):
        shown(browser, tmp_path, document, width)
        at = places(browser)
        assert 0 <= at["badge"][0] < at["H1"][1] <= at["Witness AUC"][0]
        assert at["Witness AUC"][1] <= HEIGHT
        assert at["MMD²"][1] <= HEIGHT


@pytest.mark.parametrize("width", [PANEL, COMPARE_WITHIN])
def test_no_figure_covers_another_or_leaves_its_row(browser, tmp_path, width):
    for page in ("features without drift", "names without a space"):
        shown(browser, tmp_path, PAGES[page](), width)
        rows = browser.evaluate("""
            [...document.querySelectorAll('.first > div')].map(row => [row, ...row.children].map(e => {
                const box = e.getBoundingClientRect();
                return [box.left, box.top, box.right, box.bottom];
            }))
        """)
        for row, label, value, note in rows:
            assert row[0] <= label[0] <= label[2] <= value[0] <= value[2] <= row[2]
            assert max(label[3], value[3]) <= note[1] + 1
            assert note[3] <= row[3]


@pytest.mark.parametrize("width", [COMPARE_WITHIN, PANEL])
def test_letters_of_drawings_are_legible_in_the_ui(browser, tmp_path, width):
    shown(browser, tmp_path, PAGES["a search that found drift"](), width)
    # Of a letter's box: about 1.2 times its size.
    heights = browser.evaluate(
        "[...document.querySelectorAll('.narrow text')].map(e => e.getBoundingClientRect().height)"
    )
    assert min(heights) >= 10


class References(HTMLParser):
    """Everything in a document that leads away from it, or that a frame without an origin of its own cannot do.

    A link, even to an anchor within the page, would load the UI itself into its frame; a new window is not allowed.
    """

    TAGS = re.compile(
        "a|area|audio|base|button|embed|form|frame|iframe|image|img|input|link|map|object|picture|script|source|track|use"
        "|video"
    )
    ATTRIBUTES = re.compile(
        "on.*|action|background|cite|data|formaction|href|http-equiv|manifest|ping|poster|src|srcdoc|srcset|style|target"
        "|usemap|xlink:href"
    )
    STYLE = re.compile(r"(?:url|src|image-set|expression)\s*\(|@import|@font-face|javascript:", re.IGNORECASE)

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._in_style = False
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._in_style = tag == "style"
        if self.TAGS.fullmatch(tag):
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            if self.ATTRIBUTES.fullmatch(name) or self.STYLE.search(value or ""):
                self.found.append(f"<{tag} {name}={value}>")

    def handle_endtag(self, tag):
        self._in_style = False

    def handle_data(self, data):
        if self._in_style:
            self.found.extend(self.STYLE.findall(data))


@pytest.mark.parametrize("page", PAGES)
def test_no_page_has_a_link_an_anchor_a_script_or_a_reference(page):
    assert References(PAGES[page]()).found == []


def test_what_only_looks_like_a_reference_is_a_text():
    words = "<a href='#top'>up</a> <script>go()</script> url(x.png) @import 'x.css' src=\"x\" onclick=\"y\""
    document = foreign(words, words)
    assert References(document).found == []
    assert "url(x.png)" in document


@pytest.mark.parametrize(
    "slip",
    [
        "<a name=figures>Figures</a>",
        "<a href='#figures'>Figures</a>",
        "<A HREF='https://example.org'>more</A>",
        "<script>1</script>",
        "<script src='x.js'></script>",
        "<svg><use href='#key'/></svg>",
        "<svg><a xlink:href='#key'><text>x</text></a></svg>",
        "<svg><rect fill='url(#stripes)'/></svg>",
        "<img src='data:image/png;base64,AA=='>",
        "<link rel=stylesheet href='x.css'>",
        "<p style='background: red'>x</p>",
        "<p onclick='go()'>x</p>",
        "<form action='x'><button>go</button></form>",
        "<style>p { background: URL( x.png ) }</style>",
        "<style>@import 'x.css';</style>",
        "<style>@font-face { font-family: x; src: local(x) }</style>",
        "<meta http-equiv=refresh content='0; x'>",
        "<iframe srcdoc='x'></iframe>",
    ],
)
@pytest.mark.parametrize("page", ["one kernel", "skipped"])
def test_a_link_an_anchor_a_script_or_a_reference_would_be_noticed(page, slip):
    document = PAGES[page]()
    for mark in ("</main>", "</head>"):
        assert References(document.replace(mark, slip + mark)).found


def test_a_page_of_a_skipped_run_is_silent_and_asks_for_nothing(browser, tmp_path):
    shown(browser, tmp_path, PAGES["skipped"](), PANEL)
    assert "the window is empty" in browser.evaluate("document.querySelector('main').innerText")
    assert browser.complaints() == []
    assert outside(browser.requests()) == []
