"""The one door to kserve: what the server takes of it, imported without its reading our command line.

``import kserve`` parses ``sys.argv`` with options of its own, abbreviations included: our ``--model`` would set its
``--model_name``, and a value of another type would end the process. So it is shown an empty command line.
"""

from __future__ import annotations

import sys

_arguments = sys.argv
sys.argv = _arguments[:1]
try:
    from kserve import Model, ModelRepository, ModelServer
    from kserve.errors import ModelNotFound, ServerNotReady
    from kserve.metrics import POST_HIST_TIME, PRE_HIST_TIME, PREDICT_HIST_TIME
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
    from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import add_GRPCInferenceServiceServicer_to_server
    from kserve.protocol.grpc.servicer import InferenceServicer
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
finally:
    sys.argv = _arguments

__all__ = [
    "POST_HIST_TIME",
    "PREDICT_HIST_TIME",
    "PRE_HIST_TIME",
    "DataPlane",
    "InferenceServicer",
    "Model",
    "ModelNotFound",
    "ModelRepository",
    "ModelRepositoryExtension",
    "ModelServer",
    "ServerNotReady",
    "add_GRPCInferenceServiceServicer_to_server",
    "messages",
]
