"""Memory that a process shares with its forks, and that grows when more is needed."""

from __future__ import annotations

import math
import mmap
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_LINE = 64  # as torch aligns its own tensors: kernels may be chosen by alignment
_LEAST = 1 << 16


class TensorPlace(NamedTuple):
    """Where a tensor lies in an arena, and how its values are to be looked at."""

    at: int
    dtype: torch.dtype
    stored: tuple[int, ...]  # the shape as stored, dimensions in the order of their strides
    order: tuple[int, ...] | None  # which dimension of the tensor each stored one is, if it differs
    shape: tuple[int, ...]


class ArrayPlace(NamedTuple):
    """Where an array lies in an arena."""

    at: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Arena:
    """An anonymous file in memory, mapped by every process that inherits it.

    It has no name in any file system, and is gone with the last process that has it open: nothing
    is left behind, however processes end. Whoever writes may make it longer; a reader maps it anew
    when it is told of a place behind its own mapping. It never becomes shorter, and who may write
    where and when is for its users to agree on.
    """

    def __init__(self) -> None:
        """An empty one; processes forked from now on share it."""
        self._file = os.memfd_create("hanse", os.MFD_CLOEXEC)
        os.ftruncate(self._file, _LEAST)
        self._map: mmap.mmap | None = None

    def close(self) -> None:
        """Give up this process's hold on it; views that are still in use stay valid."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._map = -1, None

    def put_bytes(self, data: bytes, at: int) -> int:
        """Write bytes at `at`; where they end."""
        end = at + len(data)
        self._mapped(end)[at:end] = data
        return end

    def bytes(self, at: int, length: int) -> memoryview:
        """A view of some bytes."""
        return memoryview(self._mapped(at + length))[at : at + length]

    def put_tensor(self, tensor: Tensor, at: int) -> tuple[TensorPlace, int]:
        """Write a tensor's values behind `at`; its place, and where they end.

        It comes back with the same strides, except that gaps are closed: kernels are chosen by
        strides, and with them the last bits.
        """
        values, order = tensor.detach(), None
        if not values.is_contiguous():
            order = tuple(
                np.argsort([-stride for stride in tensor.stride()], kind="stable").tolist()
            )
            for dimension in range(values.dim()):  # what is repeated is stored once
                if values.stride(dimension) == 0:
                    values = values.narrow(dimension, 0, min(1, values.shape[dimension]))
            values = values.permute(order)
        at = -(-at // _LINE) * _LINE
        place = TensorPlace(at, tensor.dtype, tuple(values.shape), order, tuple(tensor.shape))
        if values.numel():
            self._tensor(at, tensor.dtype, values.numel()).view(values.shape).copy_(values)
        return place, at + values.nbytes

    def tensor(self, place: TensorPlace) -> Tensor:
        """A view of a tensor."""
        values = self._tensor(place.at, place.dtype, math.prod(place.stored)).view(place.stored)
        if place.order is None:
            return values
        return values.permute(tuple(np.argsort(place.order).tolist())).expand(place.shape)

    def put_array(self, array: NDArray[Any], at: int) -> tuple[ArrayPlace, int]:
        """Write an array's values behind `at`; its place, and where they end."""
        at = -(-at // _LINE) * _LINE
        place = ArrayPlace(at, array.dtype, array.shape)
        self._mapped(at + array.nbytes)
        self.array(place)[...] = array
        return place, at + array.nbytes

    def array(self, place: ArrayPlace) -> NDArray[Any]:
        """A view of an array."""
        count = math.prod(place.shape)
        if not count or not place.dtype.itemsize:
            return np.zeros(place.shape, place.dtype)
        whole = self._mapped(place.at + count * place.dtype.itemsize)
        return np.frombuffer(whole, place.dtype, count, place.at).reshape(place.shape)

    def _tensor(self, at: int, dtype: torch.dtype, count: int) -> Tensor:
        if not count:
            return torch.empty(0, dtype=dtype)
        whole = self._mapped(at + count * dtype.itemsize)
        return torch.frombuffer(whole, dtype=dtype, count=count, offset=at)

    def _mapped(self, end: int) -> mmap.mmap:
        """A mapping of at least `end` bytes; the file grows to them if it must."""
        if self._map is None or len(self._map) < end:
            size = os.fstat(self._file).st_size
            if size < end:
                size = 1 << (end - 1).bit_length()  # unused pages take no memory
                os.ftruncate(self._file, size)
            self._map = mmap.mmap(self._file, size)  # the old one stays for as long as it is viewed
        return self._map
