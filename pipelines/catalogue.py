"""Driftline's pipelines and components by name: what can be compiled and what others build on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from driftline.components.declaration import Component
from driftline.components.embedding.component import embed, finish_backfill, plan_backfill
from driftline.components.kernel.component import kernel_sums, plan
from driftline.components.mmd.component import mmd_test, report
from driftline.components.notification.component import fail_on_drift, notify
from driftline.components.projection.component import fit, project
from driftline.components.sampling.component import sample
from driftline.pipelines.backfill import backfill_pipeline
from driftline.pipelines.drift import drift_pipeline
from driftline.pipelines.profile import Profile

PIPELINES: Final[Mapping[str, Callable[[Profile], Callable[..., Any]]]] = {
    "backfill": backfill_pipeline,
    "drift": drift_pipeline,
}

COMPONENTS: Final[Mapping[str, Component]] = {
    component.name: component
    for component in (
        plan_backfill, embed, finish_backfill,
        sample, fit, project, plan, kernel_sums, mmd_test, report, notify, fail_on_drift,
    )
}  # fmt: skip
"""By the names that KFP gives them, such as ``kernel-sums``."""
