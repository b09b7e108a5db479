"""The demonstration: drift in real film reviews, from package archives to reports, with nothing built in."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from driftline.components.drift_settings import DriftSettings
from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.errors import UsageError
from driftline.components.mmd.result import DriftResult
from driftline.components.random_bits import check_seed
from driftline.components.storage.objects.location import is_gcs
from driftline.components.storage.objects.store import remove_tree
from driftline.pipelines.demo.data import Window, cut_windows, fetch_model, fetch_texts
from driftline.pipelines.runs import compared, run_drift, run_embed


def run_demo(folder: str, seed: int, say: Callable[[str], None]) -> list[tuple[Window, DriftResult]]:
    """Fetch the model and the texts, embed four windows, run the drift pipeline on three, and say what it found.

    Args:
        folder: where everything goes; a second run finds model, texts and embeddings there.
        seed: decides which texts go into which window, and the tests' permutations.
        say: takes each line of the outcome.
    """
    check_seed(seed)  # before minutes of fetching
    if is_gcs(folder):
        raise UsageError(f"folder: expected a local folder, got {folder}; the demonstration runs on this machine alone")
    home = Path(folder).absolute()
    model = fetch_model(home)
    windows = cut_windows(home, fetch_texts(home), seed)
    for window in windows:
        run_embed([str(window.path)], str(model), _dataset(home, window), BackfillSettings(), f"embed {window.name}")
    reference, *others = windows
    settings = DriftSettings(seed=seed)
    found: list[tuple[Window, DriftResult]] = []
    for window in others:
        out = str(home / "reports" / window.name)
        remove_tree(out)  # of the demonstration before: a run writes over no report
        result = run_drift(_dataset(home, reference), _dataset(home, window), out, settings, f"drift {window.name}")
        found.append((window, compared(result)))
    _summary(Path(folder), found, say)
    return found


def _dataset(home: Path, window: Window) -> str:
    return str(home / "embeddings" / window.name)


def _summary(folder: Path, found: list[tuple[Window, DriftResult]], say: Callable[[str], None]) -> None:
    level, rows = found[0][1].level, found[0][1].reference.sampled
    say("")
    say(f"Each window against the reference of {rows} film reviews, at level {level:g}:")
    say("")
    say(f"{'window':8} {'what it holds':40} {'MMD²':>8}  {'95% interval':20} {'p-value':>7}  {'seen by':10}  verdict")
    for window, result in found:
        low, high = result.mmd2_interval or (math.nan, math.nan)
        say(
            f"{window.name:8} {window.about:40} {result.mmd2:8.1e}  {f'{low:.1e} to {high:.1e}':20} "
            f"{result.p_value:7.4f}  {result.kernel.name:10}  {result.verdict}"
        )
    say("")
    say(f"A window that has not changed still alarms in {level:.0%} of runs: that is what the level means.")
    say("Reports, to open in a browser:")
    for window, _ in found:
        say(f"  {folder / 'reports' / window.name / 'report.html'}")
