"""Single components in a pipeline of one's own: PCA, kernel sums and the test, whose verdict it puts out itself."""

# KFP fills a component's outputs in; a pipeline's named tuple holds what tasks will put out.
# pyright: reportCallIssue=false

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl

from driftline.components.kernel.component import kernel_sums, plan
from driftline.components.mmd.component import mmd_test
from driftline.components.projection.component import fit, project
from driftline.components.sampling.component import sample
from driftline.pipelines.profile import Profile


class Decision(NamedTuple):
    """What the test decided."""

    drift: bool
    p_value: float
    mmd2: float
    verdict: str


def kernel_sums_alone(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile."""

    @dsl.pipeline(name="kernel-sums-alone", description="Two embeddings datasets, one kernel, one decision.")
    def pipeline(
        reference: str,
        current: str,
        output_folder: str,
        kernel: str = "rbf",
        kernel_tasks: int = 4,
        test_level: float = 0.05,
    ) -> Decision:
        """Compare two embeddings datasets with one kernel.

        Args:
            reference: Embeddings dataset.
            current: Embeddings dataset to compare with it.
            output_folder: Folder for the working files.
            kernel: Name of the kernel.
            kernel_tasks: Tasks to share the work among.
            test_level: Accepted rate of false alarms.

        Returns:
            drift: Whether the samples differ.
            p_value: The test's p-value; 1 for a run that was skipped.
            mmd2: Unbiased estimate of MMD²; 0 for a run that was skipped.
            verdict: drift found, no drift found, or skipped where there was nothing to compare.
        """
        # The first step takes all settings; the later ones find theirs in what they are handed.
        sampled = profile.place(
            sample(
                reference=reference, current=current, output_folder=output_folder, kernel=kernel,
                kernel_tasks=kernel_tasks, test_level=test_level,
            )
        )  # fmt: skip
        pooled = sampled.outputs["pooled_sample"]
        fitted = profile.place(fit(pooled_sample=pooled)).outputs["pca_projection"]
        projected = profile.place(project(pooled_sample=pooled, pca_projection=fitted)).outputs["projected_sample"]
        planned = profile.place(plan(projected_sample=projected))
        kernel_plan = planned.outputs["kernel_plan"]
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=profile.parallelism) as share:
            summed = profile.place(kernel_sums(share=share, kernel_plan=kernel_plan))
        tested = profile.place(mmd_test(kernel_plan=kernel_plan).after(summed))
        return Decision(**{name: tested.outputs[name] for name in Decision._fields})

    return pipeline
