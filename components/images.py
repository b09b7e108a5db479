"""The container images that the components run in.

A compiled pipeline names them as they are here, unless `driftline compile --image NAME=REFERENCE` gives others: in
production, an image's digest in the user's own registry.
"""

from typing import Final

VERSION: Final = "0.1.0"

EMBED: Final = f"driftline/embed:{VERSION}"
"""PyTorch and sentence-transformers: encoding and backfill."""

KERNELS: Final = f"driftline/kernels:{VERSION}"
"""JAX: sampling, projection, kernels, tests and report."""

BY_NAME: Final = {"embed": EMBED, "kernels": KERNELS}
