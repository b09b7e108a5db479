"""How often the demonstration's windows are found to drift: `python tests/bench/power.py`.

Draws the windows anew many times, each time projects and tests them as the drift pipeline does, and counts the
rejections, with their 99% interval (Clopper and Pearson). The quiet window should be rejected at the level's rate, the
mixed one nearly always: the demonstration's sample sizes were chosen by this measurement.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

from driftline.components.embedding.encoder import Encoder
from driftline.components.mmd import two_sample_test
from driftline.components.projection.pca import PCA, gather
from driftline.pipelines.demo_data import MODEL_NAME, draw_windows, fetch_model, fetch_texts

COMPONENTS = 32
LEVEL = 0.05


def main() -> None:
    """Embed all texts once, draw, test, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--permutations", type=int, default=199)
    parser.add_argument("--out", type=Path, default=Path("bench-results/power.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="driftline-") as folder:
        texts = fetch_texts(Path(folder))
        encoder = Encoder.load(fetch_model(Path(folder)), MODEL_NAME)
        vectors = dict(zip((text.id for text in texts), encoder.encode([text.text for text in texts]), strict=True))
    rejections: dict[str, int] = {}
    for seed in range(options.draws):
        (_, _, reference), *others = draw_windows(texts, seed)
        for name, _, window in others:
            pooled = np.stack([vectors[text.id] for text in (*reference, *window)])
            z = PCA.fit(gather([pooled]), COMPONENTS).project(pooled).astype(np.float32)
            result = two_sample_test(
                z[: len(reference)], z[len(reference) :], permutations=options.permutations, level=LEVEL, seed=seed
            )
            rejections[name] = rejections.get(name, 0) + result.rejected
    table = {}
    print(f"rejections in {options.draws} draws at level {LEVEL}")
    for name, count in rejections.items():
        interval = binomtest(count, options.draws).proportion_ci(0.99, method="exact")
        table[name] = {"rejections": count, "draws": options.draws, "interval": [interval.low, interval.high]}
        print(f"  {name:8} {count:5}  rate {count / options.draws:.3f}, 99%: {interval.low:.3f}-{interval.high:.3f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
