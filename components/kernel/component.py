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
    permutations: int,
    level: float,
    seed: int,
    tasks: int,
    kernel_spec: dsl.Output[dsl.Artifact],
) -> list:
    """Settle the bandwidth and the relabellings, and cut the kernel matrix into tasks.

    Args:
        projected_sample: Where the projected vectors lie.
        kernel: Name of the kernel, for example rbf.
        gamma: Inverse squared length scale, a number above 0, or median.
        permutations: Number of random relabellings.
        level: Accepted rate of false alarms, which the permutations must be able to reach.
        seed: Seed of the run.
        tasks: Tasks to share the work among.
        kernel_spec: What every kernel task needs to know, as JSON.

    Returns:
        One item for each task.
    """
    from driftline.components.kernel import step

    return step.plan(
        projected=projected_sample.path, kernel=kernel, gamma=gamma, permutations=permutations,
        level=level, seed=seed, tasks=tasks, out=kernel_spec.path,
    )  # fmt: skip


@dsl.component(base_image=KERNELS, install_kfp_package=False)
def kernel_sums(
    share: dict,
    kernel_spec: dsl.Input[dsl.Artifact],
    partial_sums: dsl.Output[dsl.Artifact],
):
    """Sum one task's tiles of the kernel matrix, for the observed labelling and every relabelling.

    Args:
        share: Which task this is.
        kernel_spec: What every kernel task needs to know.
        partial_sums: What the tiles add up to, a NumPy archive.
    """
    from driftline.components.kernel import step

    step.sums(spec=kernel_spec.path, share=share, out=partial_sums.path)
