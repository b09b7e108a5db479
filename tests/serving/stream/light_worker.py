"""`driftline stream` without the libraries of models, which take seconds to load: the encoder is the tests' own.

Arguments: the settings as JSON, and the broker's address.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys

from driftline.serving.process import stopping_on_signals
from driftline.serving.stream.encoding import Model
from driftline.serving.stream.run import run_stream
from driftline.serving.stream.settings import BatchLimits, BufferLimits, StreamSettings
from tests.serving.stream.workers import FakeEncoder
from tests.support.brokers import settings_of

if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # where it hangs, should it
    given = json.loads(sys.argv[1])
    settings = StreamSettings(
        **{**given, "batch": BatchLimits(**given["batch"]), "buffer": BufferLimits(**given["buffer"])}
    )
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("driftline").setLevel(logging.INFO)
    with stopping_on_signals() as stop:
        run_stream(
            settings,
            settings_of(sys.argv[2]),
            lambda: Model(FakeEncoder(seconds=float(os.environ.get("ENCODE_S", "0.02"))), "tiny", "sha256:0"),
            stop,
            environment=os.environ,
        )
