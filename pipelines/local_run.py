"""The process that runs a pipeline with KFP's runner: `python -m driftline.pipelines.local_run ROOT < request`."""

from __future__ import annotations

import json
import sys

from kfp import local

from driftline.pipelines.catalogue import PIPELINES
from driftline.pipelines.profile import LOCAL


def main() -> None:
    """Read a request from standard input and run it; artifacts go below the folder given as the only argument."""
    root = sys.argv[1]
    request = json.load(sys.stdin)
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=f"{root}/artifacts",
        workspace_root=f"{root}/workspace",
    )
    pipeline = PIPELINES[request["pipeline"]](LOCAL)
    pipeline(**request["arguments"])


if __name__ == "__main__":
    main()
