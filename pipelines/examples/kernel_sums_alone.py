"""Single components in a pipeline of one's own: PCA, kernel sums and the test, read without a report."""

# KFP fills a component's outputs in; it takes a named tuple that is written in place.
# pyright: reportCallIssue=false, reportInvalidTypeForm=false

from collections.abc import Callable
from typing import Any, NamedTuple

from kfp import dsl

from driftline.components.artifacts import Outcome
from driftline.components.declaration import component
from driftline.components.kernel.component import kernel_sums, plan
from driftline.components.mmd.component import mmd_test
from driftline.components.projection.component import fit, project
from driftline.components.sampling.component import sample
from driftline.pipelines.examples.small_steps import place_small
from driftline.pipelines.profile import Profile


class Decision(NamedTuple):
    """What the test decided."""

    rejected: bool
    p_value: float
    mmd2: float


@component(image="kernels")
def read_outcome(
    outcome: dsl.Input[Outcome],
) -> NamedTuple("Decided", [("rejected", bool), ("p_value", float), ("mmd2", float)]):
    """Read what the test decided. A run that was skipped, its samples being too small, decides nothing.

    Args:
        outcome: Of mmd_test.

    Returns:
        rejected: Whether the samples differ, at the level of the test.
        p_value: The test's p-value; 1 for a run that was skipped.
        mmd2: Unbiased estimate of MMD².
    """
    import json

    with open(outcome.path, encoding="utf-8") as file:  # noqa: PTH123 - shorter, in a body that travels alone
        found = json.load(file).get("outcome", {"rejected": False, "p_value": 1.0, "mmd2": 0.0})
    return found["rejected"], found["p_value"], found["mmd2"]


def kernel_sums_alone(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile."""

    @dsl.pipeline(name="kernel-sums-alone", description="Two embeddings datasets, one kernel, one decision.")
    def pipeline(
        reference: str, current: str, out: str, kernel: str = "rbf", level: float = 0.05, tasks: int = 4
    ) -> Decision:
        """Compare two embeddings datasets with one kernel.

        Args:
            reference: Embeddings dataset.
            current: Embeddings dataset to compare with it.
            out: Folder for the working files.
            kernel: Name of the kernel.
            level: Accepted rate of false alarms.
            tasks: Kernel tasks to share the work among.

        Returns:
            rejected: Whether the samples differ.
            p_value: The test's p-value.
            mmd2: Unbiased estimate of MMD².
        """
        pooled = profile.place(sample(reference=reference, current=current, out=out)).outputs["pooled_sample"]
        fitted = profile.place(fit(pooled_sample=pooled)).outputs["projection"]
        projected = profile.place(project(pooled_sample=pooled, projection=fitted)).outputs["projected_sample"]
        planned = profile.place(plan(projected_sample=projected, kernel=kernel, level=level, tasks=tasks))
        kernel_plan = planned.outputs["kernel_plan"]
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=profile.parallelism) as share:
            summed = profile.place(kernel_sums(share=share, kernel_plan=kernel_plan))
        tested = profile.place(mmd_test(kernel_plan=kernel_plan, level=level).after(summed))
        decided = place_small(profile, read_outcome(outcome=tested.outputs["outcome"]))
        return Decision(**{name: decided.outputs[name] for name in Decision._fields})

    return pipeline
