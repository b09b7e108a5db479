"""Sample input of the report, as real runs give it: one kernel or a search, drift or none."""

from __future__ import annotations

import dataclasses

import numpy as np

from driftline.components.mmd.report.data import HistoryPoint, ReportData
from driftline.components.mmd.result import (
    DriftResult,
    FoundWindow,
    KernelFinding,
    MovedText,
    SkippedResult,
    StepTiming,
)
from driftline.components.sampling.identity import SampleIdentity

REFERENCE_TEXTS = (
    "A slow, tender family drama, and the last half hour is worth the whole ticket.",
    "The director lets the camera rest on faces, and trusts the audience to wait.",
    "Funny for an hour, then it loses its nerve and explains every joke twice.",
    "Handsome, well acted and about twenty minutes too long; I would still see it again.",
    "What begins as a heist ends as a study of two brothers who cannot say sorry.",
)
CURRENT_TEXTS = (
    "The parcel came two days late and the lid was cracked, but support sent a new one at once.",
    "Battery lasts a day and a half with the screen on; the charger gets too warm to touch.",
    "Five stars for the fit, two for the colour: what arrived is green rather than blue.",
    "Stopped pairing with my phone after the update, and the manual only repeats the box.",
    "Good value if you are patient with the app, which forgets the password every week.",
)


def search(drift: bool) -> tuple[KernelFinding, ...]:
    """Return what the eight kernels of a search would see; the seventh sees most."""
    parts = np.array([0.01, 0.02, 0.05, 0.04, 0.03, 0.11, 0.53, 0.21] if drift else [0.125] * 6 + [0.15, 0.1])
    return tuple(
        KernelFinding(
            name="rbf" if k < 4 else "laplace-l2",
            gamma=0.5713 * (1 if k < 4 else 2) * 4.0 ** (2 - k % 4),
            weight=1 / 8,
            mmd2=float(3.21e-3 * (1 - 0.08 * abs(k - 6)) if drift else 3.1e-5 + 1e-5 * (6 - k)),
            p_value=1 / 501 if drift else 0.31 + 0.05 * abs(k - 6),
            share=float(part),
        )
        for k, part in enumerate(parts)
    )


def make_data(
    drift: bool = True, permutations: int = 500, points: int = 1000, runs: int = 12, kernels: int = 1
) -> ReportData:
    """Return the report's input of a run with these sizes; at most 28 runs, one or eight kernels."""
    rng = np.random.default_rng(20260314)
    permuted = 2.4e-4 * (rng.chisquare(9, permutations) / 9 - 1)
    mmd2 = 3.21e-3 if drift else 3.1e-5
    reference = rng.normal(size=(points, 2)) * [1.3, 0.9]
    shift = np.where(rng.random((points, 1)) < 0.35, [[1.9, 1.1]], [[0.1, 0.0]]) if drift else 0.0
    current = rng.normal(size=(points, 2)) * [1.2, 0.95] + shift
    ratios = tuple((0.16 * 0.9 ** np.arange(64) / 2).tolist())
    statistic = mmd2
    if kernels > 1:
        permuted = rng.gumbel(0.2, 0.7, permutations)
        statistic = 9.41 if drift else 0.62
    threshold = float(np.quantile(permuted, 0.95))
    p_value = float(1 + (permuted >= statistic).sum()) / (permutations + 1)
    found = search(drift) if kernels > 1 else (KernelFinding("rbf", 0.5713, 1.0, mmd2, p_value, 1.0),)
    leading = max(range(len(found)), key=lambda k: found[k].share)
    past: list[HistoryPoint] = []
    for k in range(min(runs, 28)):
        alarm = drift and k >= runs - 3
        value = 1.155e-3 * (k - runs + 3.8) if alarm else float(rng.normal(0, 6e-5))
        past.append(
            HistoryPoint(
                created=f"2026-03-{3 + k:02d}T06:00:00+00:00",
                drift=alarm,
                p_value=1 / (permutations + 1) if alarm else 0.4,
                mmd2=value,
                mmd2_interval=(max(value - 4e-4, 0.0), max(value, 0.0) + 5e-4),
                auc=0.5 + 35 * value,
                kernel=found[-1 if alarm or k % 3 else 0].name,
                gamma=found[leading].gamma * float(rng.normal(1, 0.03)),
            )
        )
    interval = (2.81e-3, 3.67e-3) if drift else (0.0, 4.2e-4)
    auc = 0.613 if drift else 0.503
    past[-1] = HistoryPoint(
        created=past[-1].created,
        drift=drift,
        p_value=p_value,
        mmd2=mmd2,
        mmd2_interval=interval,
        auc=auc,
        kernel=found[leading].name,
        gamma=found[leading].gamma,
    )
    moved = tuple(
        MovedText(
            id=f"{'review' if text in CURRENT_TEXTS else 'film'}-{4021 + 97 * k}",
            sample="current" if text in CURRENT_TEXTS else "reference",
            witness=witness,
            text=text,
        )
        for k, (text, witness) in enumerate(
            [(CURRENT_TEXTS[k % 5], -0.093 + 0.0041 * k) for k in range(10)]
            + [(REFERENCE_TEXTS[k % 5], 0.021 + 0.0037 * k) for k in range(10)]
        )
    )
    digest = "sha256:9f2c41d07be85a36c0174fd2e96b83ac15d0f7482be9631ca04d58f7126be3a9"
    result = DriftResult(
        created=past[-1].created,
        drift=drift,
        method="exact",
        method_reason="chosen by size (2,000 rows are within the 200,000 of the exact method): every pair of texts is "
        "compared, and the p-value is a permutation test's, exact at any size",
        combination="studentised" if kernels > 1 else "",
        statistic=statistic,
        p_value=p_value,
        threshold=threshold,
        level=0.05,
        permutations=permutations,
        seed=17,
        kernels=found,
        leading_kernel=leading,
        mmd2=mmd2,
        mmd2_interval=interval,
        auc=auc,
        feature_error_bound=0.0,
        reference=SampleIdentity(
            "gs://reviews/embeddings/2026-02", digest, "all-MiniLM-L6-v2", "c9745ed1", 384, 48210, 1000
        ),
        current=SampleIdentity(
            "gs://reviews/embeddings/2026-03-14",
            "sha256:" + digest[:6:-1],
            "all-MiniLM-L6-v2",
            "c9745ed1",
            384,
            6127,
            1000,
        ),
        components=64,
        explained_variance_ratio=ratios,
        moved=moved,
        steps=(
            StepTiming("sample", 1, 3.42),
            StepTiming("project", 4, 11.8),
            StepTiming("kernel", 8, 96.3),
            StepTiming("test", 1, 0.214),
        ),
    )
    return ReportData(
        result,
        permuted,
        reference.astype(np.float32),
        current.astype(np.float32),
        (0.412, 0.187),
        tuple(past),
    )


def change(data: ReportData, **values: object) -> ReportData:
    """Return the data with fields of the report, or of its result, replaced."""
    mine = {field.name for field in dataclasses.fields(ReportData)}
    outer = {key: value for key, value in values.items() if key in mine}
    inner = {key: value for key, value in values.items() if key not in mine}
    return dataclasses.replace(data, result=dataclasses.replace(data.result, **inner), **outer)


def make_skipped(uri: str = "gs://reviews/embeddings", asked: str = "date=yesterday") -> SkippedResult:
    """Return the result of a run with an empty window."""
    sides = [
        FoundWindow(f"{uri}/{date}", f"{uri}/{asked}", rows, missing)
        for date, rows, missing in (("date=2026-03-06..2026-03-13", 48210, ("2026-03-09",)), ("date=2026-03-14", 0, ()))
    ]
    return SkippedResult(
        created="2026-03-15T06:00:00+00:00",
        reason=f"current {sides[1].uri}: the window is empty",
        reference=sides[0],
        current=sides[1],
        run="5b0e7a1f",
        job="drift-7xk2p",
        as_of="2026-03-15T06:00:00+00:00",
        report_uri="gs://reviews/reports/report.html",
    )
