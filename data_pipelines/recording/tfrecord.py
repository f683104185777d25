"""TFRecord files and the `tf.train.Example` messages in them, read without TensorFlow.

A file is a sequence of records: length (uint64), its checksum (uint32), the bytes of the record, their checksum, all little
endian. A checksum is a masked CRC-32C. An Example is a protobuf map from names to lists of bytes, of float32 or of int64.
"""

import functools
import struct
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from wsm_jax.typing import Int, Shaped

LIMIT_BYTES = 2**31
"""Largest record that is read; protobuf has the same limit."""

_DAMAGED = "; get the file again"
_SCALARS = {
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "float": descriptor_pb2.FieldDescriptorProto.TYPE_FLOAT,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
}
_FIELDS = {
    "Example": (("features", "Features", False),),
    "Features": (("feature", "Entry", True),),
    "Entry": (("key", "bytes", False), ("value", "bytes", False)),
    "Feature": (("bytes_list", "BytesList", False), ("float_list", "FloatList", False), ("int64_list", "Int64List", False)),
    "BytesList": (("value", "bytes", True),),
    "FloatList": (("value", "float", True),),
    "Int64List": (("value", "int64", True),),
}
"""Fields of every message, numbered from 1: name, type, repeated."""


def record_index(path: Path) -> Int[np.ndarray, "n 2"]:
    """(offset, length) of every record; reads 12 bytes a record, and checks that the file is complete.

    Raises FileNotFoundError, or ValueError, naming the file, for another format or a truncated file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; needed a TFRecord file")
    size, offset, rows = path.stat().st_size, 0, []
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            head = file.read(12)
            if len(head) < 12:
                raise ValueError(f"{path}: ends early, in the head of record {len(rows)} at byte {offset}{_DAMAGED}")
            length, check = struct.unpack("<QI", head)
            if masked_crc32c(head[:8]) != check:
                what = "is no TFRecord file" if offset == 0 else f"is damaged in the head of record {len(rows)}"
                raise ValueError(f"{path}: {what}: the checksum of a length at byte {offset} is wrong{_DAMAGED}")
            if length > LIMIT_BYTES:
                raise ValueError(f"{path}: record {len(rows)} has {length} bytes; needed at most {LIMIT_BYTES}")
            if offset + 16 + length > size:
                raise ValueError(f"{path}: ends early: record {len(rows)} needs {offset + 16 + length} bytes, it has {size}")
            rows.append((offset + 12, length))
            offset += 16 + length
    return np.asarray(rows, np.int64).reshape(-1, 2)


def read_record(path: Path, offset: int, length: int) -> bytes:
    """The bytes of one record of `record_index`. Raises ValueError, naming the file, where their checksum is wrong."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(length + 4)
    if len(data) != length + 4 or masked_crc32c(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise ValueError(f"{path}: is damaged: the checksum of the record at byte {offset} is wrong{_DAMAGED}")
    return data[:-4]


def masked_crc32c(data: bytes) -> int:
    """Checksum as TFRecord stores it: CRC-32C, rotated right by 15 bits, plus 0xa282ead8."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _messages() -> dict[str, Any]:
    """Message classes of tf.train.Example by name; a feature inside an Example stays bytes, so that only those asked for are
    parsed."""
    file = descriptor_pb2.FileDescriptorProto(name="wsm_jax/example.proto", package="wsm_jax", syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, repeated) in enumerate(fields, 1):
            row = message.field.add(name=field, number=number, label=3 if repeated else 1)
            if kind in _SCALARS:
                row.type = _SCALARS[kind]
            else:
                row.type, row.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".wsm_jax.{kind}"
            if name == "Feature":  # of its three lists the last one holds
                row.oneof_index = 0
        if name == "Feature":
            message.oneof_decl.add(name="kind")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"wsm_jax.{name}")) for name in _FIELDS}


def _parsed(name: str, data: bytes) -> Any:
    """Message of a serialised one. Raises ValueError for damaged bytes."""
    try:
        return _messages()[name].FromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from error


def example_features(data: bytes) -> dict[str, bytes]:
    """Features of a serialised `tf.train.Example` by name, each still serialised: see `feature_values`.

    Raises ValueError for damaged bytes.
    """
    entries = _parsed("Example", data).features.feature
    return {entry.key.decode("utf-8", "replace"): entry.value for entry in entries}


def feature_values(feature: bytes) -> list[bytes] | Shaped[np.ndarray, " n"]:
    """List of bytes, or array of float32 or int64, that one feature holds; an empty list where it states no type.

    Raises ValueError for damaged bytes.
    """
    message = _parsed("Feature", feature)
    kind = message.WhichOneof("kind")
    if kind == "float_list":
        return np.array(message.float_list.value, np.float32)
    if kind == "int64_list":
        return np.array(message.int64_list.value, np.int64)
    return list(message.bytes_list.value)
