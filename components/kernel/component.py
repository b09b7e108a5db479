"""KFP declarations of the kernel steps."""

# KFP's parameters are bare `list` and `dict`.
# pyright: reportMissingTypeArgument=false

from kfp import dsl

from driftline.components.images import KERNELS


@dsl.component(base_image=KERNELS, install_kfp_package=False)
def plan(
    projected_sample: dsl.Input[dsl.Artifact],
    kernel: str,
    gamma: str,
    combination: str,
    method: str,
    permutations: int,
    level: float,
    seed: int,
    tasks: int,
    kernel_plan: dsl.Output[dsl.Artifact],
) -> list:
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
        tasks: Tasks to share the work among.
        kernel_plan: What every kernel task needs to know, as JSON.

    Returns:
        One item for each task.
    """
    from driftline.components.kernel import step

    return step.plan(
        projected=projected_sample.path, kernel=kernel, gamma=gamma, combination=combination, method=method,
        permutations=permutations, level=level, seed=seed, tasks=tasks, out=kernel_plan.path,
    )  # fmt: skip


@dsl.component(base_image=KERNELS, install_kfp_package=False)
def kernel_sums(
    share: dict,
    kernel_plan: dsl.Input[dsl.Artifact],
    partial_sums: dsl.Output[dsl.Artifact],
):
    """Sum one task's part of the kernel matrices, for the observed labelling and every relabelling.

    Args:
        share: Which task this is.
        kernel_plan: What every kernel task needs to know.
        partial_sums: What that adds up to, a NumPy archive.
    """
    from driftline.components.kernel import step

    step.sums(plan=kernel_plan.path, share=share, out=partial_sums.path)
