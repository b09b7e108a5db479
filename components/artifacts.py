"""The types of the artifacts that components hand to one another.

They are types of their own, so that a wrong wiring fails when a pipeline is compiled, and not after hours of it. A
step's pod imports this module, and KFP is there in part only: it may import `kfp.dsl`, and nothing that builds
pipelines.
"""

from __future__ import annotations

from kfp import dsl


class _Artifact(dsl.Artifact):
    # KFP takes types of the namespaces `system` and `google` only.
    schema_version = "0.0.1"


class PooledSample(_Artifact):
    """Which rows of which datasets a drift run compares, as JSON."""

    schema_title = "system.DriftlinePooledSample"


class Projection(_Artifact):
    """A fitted principal component analysis, as JSON."""

    schema_title = "system.DriftlineProjection"


class ProjectedSample(_Artifact):
    """Where the projected vectors lie, and what the report draws of them, as JSON."""

    schema_title = "system.DriftlineProjectedSample"


class KernelPlan(_Artifact):
    """What every kernel task, and who adds up their sums, needs to know, as JSON."""

    schema_title = "system.DriftlineKernelPlan"


class Outcome(_Artifact):
    """What a test decided, and the rows that moved most, as JSON."""

    schema_title = "system.DriftlineOutcome"


class Witness(_Artifact):
    """How much each row looks like the reference or like the current window, a NumPy array."""

    schema_title = "system.DriftlineWitness"


class DriftResult(_Artifact):
    """What a drift run found, as JSON."""

    schema_title = "system.DriftlineDriftResult"


class BackfillPlan(_Artifact):
    """What every task of a backfill needs to know, as JSON."""

    schema_title = "system.DriftlineBackfillPlan"


class EmbeddingsDataset(_Artifact):
    """URI and manifest of an embeddings dataset, as JSON; its metadata hold the URI, too."""

    schema_title = "system.DriftlineEmbeddingsDataset"
