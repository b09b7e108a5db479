"""Settings that are refused."""

from __future__ import annotations

import pytest

from driftline.components.errors import UsageError
from driftline.serving.archive.settings import ArchiveSettings, FileLimits, MaintenanceRules


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ArchiveSettings("", "out"), "has 0 characters"),
        (lambda: ArchiveSettings("x" * 151, "out"), "has 151 characters"),
        (lambda: FileLimits(rows=0), "rows-per-file: expected 1 or more, got 0"),
        (lambda: FileLimits(max_delay_s=-1), "max-delay-s: expected 0 or more, got -1"),
        (lambda: MaintenanceRules(compact_files=1), "at least 2 files"),
        (lambda: MaintenanceRules(vacuum_after_s=-1), "vacuum-after-s: expected 0 or more, got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, said: str):
    with pytest.raises(UsageError, match=said):
        make()
