"""Own texts → embeddings → drift → a gate: who is asked to look is asked when there is something to see."""

# KFP fills a component's outputs in, and takes a bare `list`: neither is in its types.
# pyright: reportCallIssue=false, reportMissingTypeArgument=false

from collections.abc import Callable
from typing import Any

from kfp import dsl

from driftline.pipelines.backfill import backfill_pipeline
from driftline.pipelines.drift import drift_pipeline
from driftline.pipelines.examples.small_steps import place_small, tell_chat
from driftline.pipelines.profile import Profile


def gate(profile: Profile) -> Callable[..., Any]:
    """Return the gate, a pipeline of its own: KFP's local runner knows conditions on a pipeline's parameters only."""

    @dsl.pipeline(name="gate", description="Tell of drift.")
    def tell(drift: bool, report_uri: str, webhook: str = ""):
        with dsl.If(drift == True):  # noqa: E712 - KFP compiles the comparison
            text = "These texts no longer look like the reference"
            place_small(profile, tell_chat(text=text, report_uri=report_uri, webhook=webhook))

    return tell


def gated_drift(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile."""
    backfill, drift, tell = backfill_pipeline(profile), drift_pipeline(profile), gate(profile)

    @dsl.pipeline(name="gated-drift", description="Embed texts, compare them with a reference, and tell of drift.")
    def pipeline(
        text_files: list,
        model: str,
        embeddings: str,
        reference: str,
        output_folder: str,
        test_level: float = 0.05,
        tasks: int = 8,
        webhook: str = "",
    ):
        """Embed texts, compare them with a reference, and send a message if they drifted.

        Args:
            text_files: Files, folders or patterns of texts (Parquet, JSONL, CSV), gs:// or local.
            model: Folder, gs:// prefix or name of a sentence-transformers model, the one of the reference.
            embeddings: Folder for their embeddings.
            reference: Embeddings dataset to compare them with.
            output_folder: Folder for the report.
            test_level: Accepted rate of false alarms.
            tasks: Tasks to share the work of either half among.
            webhook: URL that takes a POST of {"text": ...}; empty to log only.
        """
        embedded = backfill(text_files=text_files, model=model, output_folder=embeddings, embed_tasks=tasks)
        compared = drift(
            reference=reference,
            current=embedded.outputs["uri"],
            output_folder=output_folder,
            test_level=test_level,
            kernel_tasks=tasks,
        )
        tell(drift=compared.outputs["drift"], report_uri=compared.outputs["report_uri"], webhook=webhook)

    return pipeline
