"""CRC-32C, in the form that Google Cloud Storage reports it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import BinaryIO

import google_crc32c

# Bytes read at a time: enough that the checksum, at gigabytes a second, is not held up by calls.
_BLOCK_BYTES = 1 << 20


def crc32c_text(checksum: google_crc32c.Checksum) -> str:
    """Base64 of the big-endian CRC-32C of what a checksum has seen."""
    return base64.b64encode(checksum.digest()).decode("ascii")


def stream_crc32c(stream: BinaryIO) -> str:
    """Base64 of the big-endian CRC-32C of what is left of a stream. Memory: 2 MiB."""
    checksum = google_crc32c.Checksum()
    while block := stream.read(_BLOCK_BYTES):
        checksum.update(block)
    return crc32c_text(checksum)


def file_crc32c(path: Path) -> str:
    """Base64 of the big-endian CRC-32C of a local file."""
    with path.open("rb") as stream:
        return stream_crc32c(stream)
