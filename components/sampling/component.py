"""KFP declaration of the sampling step."""

from kfp import dsl

from driftline.components.artifacts import PooledSample
from driftline.components.declaration import component


@component(image="kernels")
def sample(
    reference: str,
    current: str,
    output_folder: str,
    pooled_sample: dsl.Output[PooledSample],
    output_history: str = "",
    window_as_of: str = "",
    window_max_rows: int = 0,
    window_min_rows: int = 0,
    window_when_small: str = "skip",
    window_when_partial: str = "compare",
    pca_components: int = 32,
    kernel: str = "search",
    kernel_gamma: str = "median",
    kernel_combination: str = "studentised",
    kernel_tasks: int = 4,
    test_method: str = "auto",
    test_permutations: int = 500,
    test_level: float = 0.05,
    seed: int = 0,
    text_column: str = "",
    notify_url: str = "",
    job: str = "",
):
    """Check all settings of a drift run, resolve its windows, and choose the rows to compare.

    What is asked of later steps is said here, once: they read it from what they are handed. A setting that is empty,
    or 0 where 0 means nothing, is the default.

    Args:
        reference: Embeddings dataset that the stream used to look like, a gs:// or local folder; or a window of a
            folder by date, such as gs://lake/reviews/date=-8d..-2d, in UTC and relative to window_as_of.
        current: Embeddings dataset or window to compare with it, such as gs://lake/reviews/date=yesterday or
            gs://lake/reviews/hour=-24h..-1h.
        output_folder: Folder for the report and, while it runs, working files, gs:// or shared by all pods. {date},
            {hour} and {run} in it are those of window_as_of and of the run.
        output_history: Folder of past results for the trend; empty for the folder history below the output folder,
            before any placeholder.
        window_as_of: The moment that windows are relative to, an ISO 8601 date or time, in UTC; empty for now.
        window_max_rows: At most this many rows of each window, chosen by the seed; 0 for all.
        window_min_rows: Rows that each window must have to be compared; 0 for the least that a test takes.
        window_when_small: What becomes of a run with an empty window or one of fewer rows, skip or refuse.
        window_when_partial: What becomes of a run with a window that lacks some of its days, compare, skip or refuse.
        pca_components: Principal components to compare; 0 for whole vectors.
        kernel: Name of a kernel (rbf, laplace-l2, laplace-l1, imq, rq, linear, polynomial), or search for kernels of
            several shapes and widths in one test.
        kernel_gamma: Inverse squared length scale of one kernel, a number above 0, or median.
        kernel_combination: How the kernels of a search are combined: studentised, fuse (MMD-FUSE) or agg (MMDAgg).
        kernel_tasks: Tasks to share the kernel matrix among, 200 at most; 0 for 4.
        test_method: exact, cross (half of the pairs, no permutations), features (time linear in the rows), or auto, by
            size.
        test_permutations: Random permutations behind the p-value; 0 for 500.
        test_level: Accepted rate of false alarms, between 0 and 1; 0 for 0.05.
        seed: Seed of sampling and permutations.
        text_column: Carried column that holds the texts to show in the report; empty for text, where it is carried.
        notify_url: URL that is told of drift, to be checked here; empty for none.
        job: The backend's name for the run, which fills {run}.
        pooled_sample: Which rows of which datasets are compared, and how, as JSON.
    """
    from driftline.components.sampling import step

    step.run(
        reference=reference, current=current, out=output_folder, sample_out=pooled_sample.path, notify_url=notify_url,
        job=job, output_history=output_history, window_as_of=window_as_of, window_max_rows=window_max_rows,
        window_min_rows=window_min_rows, window_when_small=window_when_small, window_when_partial=window_when_partial,
        pca_components=pca_components, kernel=kernel, kernel_gamma=kernel_gamma, kernel_combination=kernel_combination,
        kernel_tasks=kernel_tasks, test_method=test_method, test_permutations=test_permutations,
        test_level=test_level, seed=seed, text_column=text_column,
    )  # fmt: skip
