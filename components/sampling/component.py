"""KFP declaration of the sampling step."""

from kfp import dsl

from driftline.components.images import KERNELS


@dsl.component(base_image=KERNELS, install_kfp_package=False)
def sample(
    reference: str,
    current: str,
    size: int,
    seed: int,
    pooled_sample: dsl.Output[dsl.Artifact],
):
    """Choose the rows that a drift run compares, and check that the two datasets can be compared.

    Args:
        reference: Embeddings dataset that the stream used to look like; a gs:// or local folder.
        current: Embeddings dataset to compare with it.
        size: At most this many rows of each, chosen by the seed; 0 for all.
        seed: Seed of the run.
        pooled_sample: Which rows of which datasets, as JSON.
    """
    from driftline.components.sampling import step

    step.run(reference=reference, current=current, size=size, seed=seed, out=pooled_sample.path)
