from __future__ import annotations

import pytest

from driftline.components.errors import UsageError
from driftline.serving.stream.settings import BufferLimits, StreamSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "texts"}, "must be three different ones"),
        ({"source": "no spaces, please"}, "input-topic: expected 1 to 249 letters"),
        ({"instance_id": ""}, "instance-id: expected"),
        ({"buffer": BufferLimits(records=10)}, "buffer-records: expected at least a batch's 512"),
        ({"static": False, "stay": True}, "stay: a dynamic member has no place"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    plain = {"source": "texts", "output": "out", "group": "g", "instance_id": "w0"}
    with pytest.raises(UsageError, match=message):
        StreamSettings(**{**plain, **changes})  # type: ignore[arg-type]
