"""The words that parameters of the pipelines take, from the settings that they become.

With a parameter's ``literals`` in the pipeline spec, Kubeflow's form has a select box in the place of a text box, and
its server refuses anything else as a run is created. KFP reads them from 2.16 on; older releases refuse the whole file,
and the SDK cannot write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from driftline.components.drift_settings import DriftSettings
from driftline.components.embedding.backfill.settings import BackfillSettings
from driftline.components.settings import described

CHOICES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    pipeline: {name: one.choices for name, one in described(kind).items() if one.choices}
    for pipeline, kind in (("backfill", BackfillSettings), ("drift", DriftSettings))
}
"""By pipeline and parameter."""


def offer_choices(spec: dict[str, Any], pipeline: str) -> None:
    """Write into a pipeline spec which values its parameters take: words, and true or false.

    Args:
        spec: the pipeline spec, which is changed.
        pipeline: which of the pipelines it is.
    """
    parameters: dict[str, dict[str, Any]] = spec["root"]["inputDefinitions"]["parameters"]
    for name, words in CHOICES[pipeline].items():
        parameters[name]["literals"] = list(words)
    for declared in parameters.values():
        if declared["parameterType"] == "BOOLEAN":
            declared["literals"] = [False, True]
