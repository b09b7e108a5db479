"""KFP declarations of the projection steps."""

from kfp import dsl

from driftline.components.images import KERNELS


@dsl.component(base_image=KERNELS, install_kfp_package=False)
def fit(
    pooled_sample: dsl.Input[dsl.Artifact],
    components: int,
    projection: dsl.Output[dsl.Model],
):
    """Fit a principal component analysis on the pooled sample.

    Args:
        pooled_sample: Which rows of which datasets to fit on.
        components: Dimensions to keep; 0 to compare whole vectors.
        projection: Mean, directions and explained variance, as JSON.
    """
    from driftline.components.projection import step

    step.fit(sample=pooled_sample.path, components=components, out=projection.path)


@dsl.component(base_image=KERNELS, install_kfp_package=False)
def project(
    pooled_sample: dsl.Input[dsl.Artifact],
    projection: dsl.Input[dsl.Model],
    out: str,
    projected_sample: dsl.Output[dsl.Artifact],
):
    """Project the pooled sample and write it below out, from where kernel tasks read the blocks they need.

    Args:
        pooled_sample: Which rows of which datasets to project.
        projection: The fitted projection.
        out: The run's folder, gs:// or shared by all pods; the vectors lie below it until the report is written.
        projected_sample: Where the projected vectors lie, and what the report draws of them, as JSON.
    """
    from driftline.components.projection import step

    step.project(sample=pooled_sample.path, projection=projection.path, workspace=out, out=projected_sample.path)
