"""KFP declaration of the sampling step."""

from kfp import dsl

from driftline.components.artifacts import PooledSample
from driftline.components.declaration import component


@component(image="kernels")
def sample(
    reference: str,
    current: str,
    out: str,
    pooled_sample: dsl.Output[PooledSample],
    size: int = 0,
    seed: int = 0,
    as_of: str = "",
    min_rows: int = 0,
    when_small: str = "skip",
    when_partial: str = "compare",
    job: str = "",
):
    """Resolve the windows of a drift run, check that they can be compared, and choose the rows.

    Args:
        reference: Embeddings dataset that the stream used to look like; a gs:// or local folder. Below a folder by date
            also a window, such as date=-8d..-2d, in UTC and relative to as_of.
        current: Embeddings dataset or window to compare with it, such as date=yesterday or hour=-24h..-1h.
        out: Folder of the run, gs:// or shared by all pods: its report, and its working files. {date}, {hour} and {run}
            in it are those of as_of and of the run.
        size: At most this many rows of each, chosen by the seed; 0 for all.
        seed: Seed of the run.
        as_of: The moment that windows are relative to, an ISO 8601 date or time; empty for now.
        min_rows: Rows that each side must have to be compared; 0 for the least that a test takes.
        when_small: What becomes of a run with an empty window or one of fewer rows, skip or refuse.
        when_partial: What becomes of a run with a window that lacks some of its days, compare, skip or refuse.
        job: The backend's name for the run, which fills {run}.
        pooled_sample: Which rows of which datasets, as JSON.
    """
    from driftline.components.sampling import step

    step.run(
        reference=reference, current=current, out=out, size=size, seed=seed, as_of=as_of, min_rows=min_rows,
        when_small=when_small, when_partial=when_partial, job=job, sample_out=pooled_sample.path,
    )  # fmt: skip
