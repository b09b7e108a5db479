from __future__ import annotations

import numpy as np
import pytest

from driftline.components.kernel.theory.permutations import Bins, labels
from driftline.components.kernel.tiles.grid import BlockGrid
from driftline.components.kernel.tiles.label_panels import LabelPanels


@pytest.mark.parametrize(
    ("n", "m", "block", "rows"), [(233, 467, 256, 1), (256, 512, 256, 1), (341, 684, 128, 4), (1027, 2050, 256, 16)]
)
def test_panels_on_the_device_are_the_definition_and_keep_what_is_not_whole(n, m, block, rows):
    seed, permutations = 2**40 + 3, 33
    bins, grid = Bins(n // rows, m // rows, rows), BlockGrid(n, m, block)
    cuts = bins.cuts(seed, permutations)
    panels = LabelPanels(seed, cuts, bins, grid)
    assert panels.permutations == permutations
    got = [np.asarray(panels.panel(index)) for index in range(grid.blocks)]
    assert {(panel.shape, panel.dtype) for panel in got} == {((block // rows, 1 + permutations), np.dtype(np.int8))}
    sides = np.array([grid.in_reference(index) for index in range(grid.blocks)])
    expected = labels(seed, cuts, bins.reference, 0, bins.reference + bins.current)
    for own, whole in ((True, expected[: bins.reference]), (False, expected[bins.reference :])):
        side = np.concatenate([panel for panel, of in zip(got, sides, strict=True) if of == own])
        np.testing.assert_array_equal(side[: len(whole)], whole)
        assert (side[len(whole) :] == own).all()
