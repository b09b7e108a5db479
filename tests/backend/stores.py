"""ML Metadata's own store behind its gRPC service, and an S3 server, on free ports of the loopback interface.

Runs in an environment of its own, whose packages do not go together with the project's; prints both ports as JSON and
ends with its standard input.
"""

import json
import sys
import threading
from concurrent import futures

import boto3
import grpc
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store as native
from ml_metadata.proto import metadata_store_pb2
from moto.server import ThreadedMotoServer

BUCKET = "mlpipeline"
LOOPBACK = "127.0.0.1"
MESSAGE_BYTES = 64 << 20  # executor inputs of wide fan-outs go beyond gRPC's 4 MiB


class Metadata(grpc.GenericRpcHandler):
    """Answers every call of the service by the C++ store's method of that name, in memory."""

    def __init__(self):
        config = metadata_store_pb2.ConnectionConfig()
        config.fake_database.SetInParent()
        options = metadata_store_pb2.MigrationOptions()
        self._store = native.CreateMetadataStore(config.SerializeToString(), options.SerializeToString())
        self._lock = threading.Lock()
        self._codes = {code.value[0]: code for code in grpc.StatusCode}

    def service(self, details):
        """Return the handler of a call; none for a call that the store does not have."""
        method = getattr(native, details.method.rpartition("/")[2], None)
        if method is None:
            return None

        def call(request, context):
            with self._lock:
                answer, message, code = method(self._store, request)
            if code:
                context.abort(self._codes[code], message.decode() if isinstance(message, bytes) else message)
            return answer

        return grpc.unary_unary_rpc_method_handler(call)


def main():
    """Serve until standard input ends."""
    metadata = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", MESSAGE_BYTES)])
    metadata.add_generic_rpc_handlers((Metadata(),))
    metadata_port = metadata.add_insecure_port(f"{LOOPBACK}:0")
    metadata.start()
    objects = ThreadedMotoServer(ip_address=LOOPBACK, port=0, verbose=False)
    objects.start()
    _, objects_port = objects.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{LOOPBACK}:{objects_port}",
        aws_access_key_id="minio",
        aws_secret_access_key="minio123",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    sys.stdout.write(json.dumps({"metadata": metadata_port, "objects": objects_port}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    objects.stop()
    metadata.stop(None)


if __name__ == "__main__":
    main()
