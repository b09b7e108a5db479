"""sentence-transformers behind a plain `kserve.Model`: each request is encoded as it comes, alone.

By hand::

    python tests/bench/peers/serve_kserve.py --model .demo/all-MiniLM-L6-v2 --port 8080
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    sys.argv = sys.argv[:1]  # kserve reads it as it is imported
    import kserve
    from sentence_transformers import SentenceTransformer

    class Embedder(kserve.Model):
        def load(self) -> bool:
            self.model = SentenceTransformer(str(options.model))
            self.model.encode(["warm"])
            self.ready = True
            return True

        def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> dict[str, Any]:
            vectors = self.model.encode(payload["instances"], show_progress_bar=False)
            return {"predictions": vectors.tolist()}

    embedder = Embedder("m")
    embedder.load()
    kserve.ModelServer(http_port=options.port, enable_grpc=False, access_log_format=None).start([embedder])


if __name__ == "__main__":
    main()
