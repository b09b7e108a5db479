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
    kernel: str = "search",
    gamma: str = "median",
    combination: str = "studentised",
    method: str = "auto",
    permutations: int = 500,
    level: float = 0.05,
    seed: int = 0,
    tasks: int = 8,
) -> List[dict]:  # noqa: UP006
    """Settle method, kernels and relabellings, and cut the work into tasks.

    Args:
        projected_sample: Where the projected vectors lie.
        kernel: Name of a kernel, for example rbf, or search for many at once.
        gamma: Inverse squared length scale of one kernel, a number above 0, or median.
        combination: How the kernels of a search are combined.
        method: How MMD² is estimated and judged: auto, exact, cross or features.
        permutations: Number of random relabellings.
        level: Accepted rate of false alarms, which the permutations must be able to reach.
        seed: Seed of the run.
        tasks: Tasks to share the work among, 200 at most.
        kernel_plan: What every kernel task needs to know, as JSON.

    Returns:
        One item for each task, for a loop over kernel_sums.
    """
    from driftline.components.kernel import step

    return step.plan(
        projected=projected_sample.path, kernel=kernel, gamma=gamma, combination=combination, method=method,
        permutations=permutations, level=level, seed=seed, tasks=tasks, out=kernel_plan.path,
    )  # fmt: skip


@component(image="kernels")
def kernel_sums(
    share: dict,
    kernel_plan: dsl.Input[KernelPlan],
):
    """Sum one task's part of the kernel matrices, for the observed labelling and every relabelling.

    The sums lie in the run's folder, from where mmd_test takes those of all tasks.

    Args:
        share: Which task this is, an item of the plan.
        kernel_plan: What every kernel task needs to know.
    """
    from driftline.components.kernel import step

    step.sums(plan=kernel_plan.path, share=share)
