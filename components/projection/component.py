"""KFP declarations of the projection steps."""

from kfp import dsl

from driftline.components.artifacts import PooledSample, ProjectedSample, Projection
from driftline.components.declaration import component


@component(image="kernels")
def fit(
    pooled_sample: dsl.Input[PooledSample],
    projection: dsl.Output[Projection],
    components: int = 32,
):
    """Fit a principal component analysis on the pooled sample.

    Args:
        pooled_sample: Which rows of which datasets to fit on.
        components: Dimensions to keep; 0 to compare whole vectors.
        projection: Mean, directions and explained variance, as JSON.
    """
    from driftline.components.projection import step

    step.fit(sample=pooled_sample.path, components=components, out=projection.path)


@component(image="kernels")
def project(
    pooled_sample: dsl.Input[PooledSample],
    projection: dsl.Input[Projection],
    projected_sample: dsl.Output[ProjectedSample],
):
    """Project the pooled sample and write it into the run's folder, from where kernel tasks read what they need.

    Args:
        pooled_sample: Which rows of which datasets to project.
        projection: The fitted projection.
        projected_sample: Where the projected vectors lie, and what the report draws of them, as JSON. The vectors lie
            there until the report is written.
    """
    from driftline.components.projection import step

    step.project(sample=pooled_sample.path, projection=projection.path, out=projected_sample.path)
