"""Every night: yesterday's texts into the archive, and yesterday against the week before, at one and the same moment.

A night without texts is no failure: both halves are skipped, and the message says that nothing was compared.
"""

# KFP fills a component's outputs in, and takes a bare `list`: neither is in its types.
# pyright: reportCallIssue=false, reportMissingTypeArgument=false

from collections.abc import Callable
from typing import Any

from kfp import dsl

from driftline.components.declaration import component
from driftline.components.mmd.result import SKIPPED
from driftline.pipelines.backfill import backfill_pipeline
from driftline.pipelines.drift import drift_pipeline
from driftline.pipelines.examples.small_steps import place_small, tell_chat
from driftline.pipelines.profile import Profile


@component(image="kernels")
def moment_of(as_of: str = "") -> str:
    """Settle the moment that a run is made for, so that all of its steps mean the same night by `yesterday`.

    Args:
        as_of: An ISO 8601 date or time; empty for now.

    Returns:
        The moment.
    """
    from datetime import UTC, datetime

    return as_of or datetime.now(UTC).isoformat(timespec="seconds")


def gate(profile: Profile) -> Callable[..., Any]:
    """Return the gate, a pipeline of its own: KFP's local runner knows conditions on a pipeline's parameters only."""

    @dsl.pipeline(name="gate", description="Tell of drift, and of a night without a comparison.")
    def tell(verdict: str, drift: bool, report_uri: str, webhook: str = ""):
        with dsl.If(verdict == SKIPPED):
            text = "Last night there was nothing to compare"
            place_small(profile, tell_chat(text=text, report_uri=report_uri, webhook=webhook))
        with dsl.If(drift == True):  # noqa: E712 - KFP compiles the comparison
            text = "Last night's texts do not look like those of the week before"
            place_small(profile, tell_chat(text=text, report_uri=report_uri, webhook=webhook))

    return tell


def nightly(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile."""
    backfill, drift, tell = backfill_pipeline(profile), drift_pipeline(profile), gate(profile)

    @dsl.pipeline(name="nightly-drift", description="Embed yesterday's texts and compare them with the week before.")
    def pipeline(
        text_files: list,
        model: str,
        night: str,
        week: str,
        output_folder: str,
        tasks: int = 8,
        webhook: str = "",
        window_as_of: str = "",
    ):
        """Embed yesterday's texts and compare them with the week before.

        Args:
            text_files: Where the stream leaves its texts, such as gs://lake/texts/date=yesterday.
            model: Folder, gs:// prefix or name of a sentence-transformers model.
            night: Yesterday in the archive of embeddings, such as gs://lake/embeddings/date=yesterday.
            week: The days before, such as gs://lake/embeddings/date=-8d..-2d.
            output_folder: Folder for the reports, such as gs://lake/reports/{date}.
            tasks: Tasks to share the work of either half among.
            webhook: URL that takes a POST of {"text": ...}; empty to log only.
            window_as_of: The moment that the run is made for, an ISO 8601 date or time; empty for now.
        """
        moment = place_small(profile, moment_of(as_of=window_as_of)).output
        embedded = backfill(
            text_files=text_files, model=model, output_folder=night, window_as_of=moment, embed_tasks=tasks
        )
        compared = drift(
            reference=week, current=night, output_folder=output_folder, window_as_of=moment, kernel_tasks=tasks
        ).after(embedded)
        tell(
            verdict=compared.outputs["verdict"],
            drift=compared.outputs["drift"],
            report_uri=compared.outputs["report_uri"],
            webhook=webhook,
        )

    return pipeline
