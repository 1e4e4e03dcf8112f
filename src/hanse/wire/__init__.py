"""What travels, as typed bytes: no pickle, no names of classes, one form for each message."""

from hanse.wire.broadcasts import broadcast_message, read_broadcast
from hanse.wire.codec import LIMIT, START, declared_length, decode, encode, length
from hanse.wire.message import Array, Entry, Kind, Message, Part, Tag
from hanse.wire.packing import Packed, pack, packed_length, unpack
from hanse.wire.vectors import (
    Form,
    Packing,
    Reader,
    Size,
    alike,
    read_update,
    update_lengths,
    update_message,
    vector_bytes,
)

__all__ = [
    "LIMIT",
    "START",
    "Array",
    "Entry",
    "Form",
    "Kind",
    "Message",
    "Packed",
    "Packing",
    "Part",
    "Reader",
    "Size",
    "Tag",
    "alike",
    "broadcast_message",
    "declared_length",
    "decode",
    "encode",
    "length",
    "pack",
    "packed_length",
    "read_broadcast",
    "read_update",
    "unpack",
    "update_lengths",
    "update_message",
    "vector_bytes",
]
