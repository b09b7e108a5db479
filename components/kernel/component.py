"""KFP declarations of the kernel steps."""

# KFP's parameters are bare `dict`.
# pyright: reportMissingTypeArgument=false

from typing import List  # noqa: UP035 - KFP knows an item's type by this name only before 2.15

from kfp import dsl

from driftline.components.artifacts import KernelPlan, ProjectedSample
from driftline.components.declaration import component


@component(image="kernels")
def plan(
    projected_sample: dsl.Input[ProjectedSample],
    kernel_plan: dsl.Output[KernelPlan],
) -> List[dict]:  # noqa: UP006
    """Settle method, kernels and permutations, and split the work into tasks.

    Args:
        projected_sample: The projected sample, and how it is to be compared.
        kernel_plan: What every kernel task needs to know, as JSON.

    Returns:
        One item for each task, for a loop over kernel_sums.
    """
    from driftline.components.kernel import step

    return step.plan(projected=projected_sample.path, out=kernel_plan.path)


@component(image="kernels")
def kernel_sums(
    share: dict,
    kernel_plan: dsl.Input[KernelPlan],
):
    """Sum one task's part of the kernel matrices, for the observed labels and every permutation.

    The sums lie in the run's folder, from where mmd_test takes those of all tasks.

    Args:
        share: Which task this is, an item of the plan.
        kernel_plan: What every kernel task needs to know.
    """
    from driftline.components.kernel import step

    step.sums(plan=kernel_plan.path, share=share)
