"""KFP declarations of the projection steps."""

from kfp import dsl

from driftline.components.artifacts import PooledSample, ProjectedSample, Projection
from driftline.components.declaration import component


@component(image="kernels")
def fit(
    pooled_sample: dsl.Input[PooledSample],
    pca_projection: dsl.Output[Projection],
):
    """Fit a principal component analysis on the pooled sample.

    Args:
        pooled_sample: Which rows of which datasets to fit on, and how many components to keep.
        pca_projection: Mean, directions and explained variance, as JSON.
    """
    from driftline.components.projection import step

    step.fit(sample=pooled_sample.path, out=pca_projection.path)


@component(image="kernels")
def project(
    pooled_sample: dsl.Input[PooledSample],
    pca_projection: dsl.Input[Projection],
    projected_sample: dsl.Output[ProjectedSample],
):
    """Project the pooled sample and write it into the run's folder, from where kernel tasks read what they need.

    Args:
        pooled_sample: Which rows of which datasets to project.
        pca_projection: The fitted projection.
        projected_sample: The pooled sample, where its projected vectors lie until the report is written, and what the
            report draws of them, as JSON.
    """
    from driftline.components.projection import step

    step.project(sample=pooled_sample.path, projection=pca_projection.path, out=projected_sample.path)
