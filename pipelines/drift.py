"""The drift pipeline: reference and current embeddings → sample → PCA → kernel tasks → MMD test → report."""

# KFP fills a component's outputs in, and takes a bare `list`: neither is in its types.
# pyright: reportCallIssue=false, reportMissingTypeArgument=false

from collections.abc import Callable
from typing import Any

from kfp import dsl

from driftline.components.kernel import component as kernel
from driftline.components.mmd import component as mmd
from driftline.components.projection import component as projection
from driftline.components.sampling import component as sampling
from driftline.pipelines.profile import MAX_PARALLELISM, Profile

NAME = "driftline-drift"


def drift_pipeline(profile: Profile) -> Callable[..., Any]:
    """Return the pipeline with its tasks placed by a profile."""

    @dsl.pipeline(name=NAME, description="Tell whether a window of texts still looks like the reference.")
    def drift(
        reference: str,
        current: str,
        out: str,
        level: float = 0.05,
        permutations: int = 500,
        kernel_name: str = "search",
        gamma: str = "median",
        combination: str = "studentised",
        method: str = "auto",
        components: int = 32,
        sample: int = 0,
        tasks: int = 8,
        seed: int = 0,
        text_column: str = "text",
        history: str = "",
    ):
        """Compare two embeddings datasets by Maximum Mean Discrepancy.

        Args:
            reference: Embeddings dataset that the stream used to look like, a gs:// or local folder.
            current: Embeddings dataset to compare with it.
            out: Folder for report.html, result.json, witness.parquet and, while it runs, working files.
            level: Accepted rate of false alarms, between 0 and 1.
            permutations: Random relabellings behind the p-value.
            kernel_name: Name of a kernel, or search for kernels of several shapes and widths in one test.
            gamma: Inverse squared length scale of one kernel, a number above 0, or median.
            combination: How the kernels of a search are combined.
            method: exact, cross (half of the pairs, no permutations), features (time linear in the rows), or auto.
            components: Principal components to compare; 0 for whole vectors.
            sample: At most this many rows of each dataset, chosen by the seed; 0 for all.
            tasks: Kernel tasks to share the work among, 200 at most.
            seed: Seed of sampling and relabelling.
            text_column: Carried column that holds the texts to show in the report.
            history: Folder of past results for the trend; empty for the folder history below out.
        """
        sampled = profile.place(
            sampling.sample(reference=reference, current=current, size=sample, seed=seed),
            "kernels", cpu="1", memory="1Gi",
        )  # fmt: skip
        pooled = sampled.outputs["pooled_sample"]
        fitted = profile.place(
            projection.fit(pooled_sample=pooled, components=components), "kernels", cpu="2", memory="4Gi"
        )
        projected = profile.place(
            projection.project(pooled_sample=pooled, projection=fitted.outputs["projection"], out=out),
            "kernels", cpu="2", memory="4Gi",
        )  # fmt: skip
        seen = projected.outputs["projected_sample"]
        planned = profile.place(
            kernel.plan(
                projected_sample=seen, kernel=kernel_name, gamma=gamma, combination=combination, method=method,
                permutations=permutations, level=level, seed=seed, tasks=tasks,
            ),
            "kernels", cpu="2", memory="2Gi",
        )  # fmt: skip
        plan = planned.outputs["kernel_plan"]
        with dsl.ParallelFor(planned.outputs["Output"], parallelism=MAX_PARALLELISM, name="kernel") as share:
            summed = profile.place(
                kernel.kernel_sums(share=share, kernel_plan=plan),
                "kernels",
                cpu="2",
                memory="4Gi",
                gpu="kernels",
            )
        tested = profile.place(
            mmd.mmd_test(
                kernel_plan=plan, partial_sums=dsl.Collected(summed.outputs["partial_sums"]),
                combination=combination, level=level,
            ),
            "kernels", cpu="1", memory="4Gi",
        )  # fmt: skip
        profile.place(
            mmd.report(
                pooled_sample=pooled, projection=fitted.outputs["projection"], projected_sample=seen,
                kernel_plan=plan, outcome=tested.outputs["outcome"], witness=tested.outputs["witness"],
                text_column=text_column, history=history,
                out=out,
            ),
            "kernels", cpu="1", memory="2Gi",
        )  # fmt: skip

    return drift
