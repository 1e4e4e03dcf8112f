"""Clients' examples loaded in a thread, while others train."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch

from hanse.data import PackedClients

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hanse.data.federation import Block, ClientData

    Ids = NDArray[np.int64]
    Loaded = tuple[Ids, Block | None]


class Ahead:
    """Clients of whom some can be loaded before they are needed, in the order of their use.

    What is ahead is loaded in a thread of its own, one call at a time. Data that must not be loaded
    so are loaded when they are needed: those that say so, by an attribute `ahead` that is false;
    those that lie in memory; and those that draw from torch's one generator
    (`torch.manual_seed(client)`), since training draws from it as well. The last are known by their
    first block, which is never loaded ahead.
    """

    def __init__(self, data: ClientData) -> None:
        """Nothing is loaded yet."""
        self._data = data
        self._able = bool(getattr(data, "ahead", not isinstance(data, PackedClients)))
        self._tried = False
        self._lock = Lock()
        self._asked: deque[Callable[[], Ids]] = deque()  # before the first block was tried
        self._thread: ThreadPoolExecutor | None = None
        self._loading: deque[Future[Loaded]] = deque()
        self._ready: Loaded | None = None

    @property
    def able(self) -> bool:
        """Whether anything may be loaded ahead, as far as is known."""
        return self._able

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self._data)

    def name(self, client: int) -> str:
        """The name of one client."""
        return self._data.name(client)

    def sizes(self, ids: Ids) -> NDArray[np.int64]:
        """How many examples each of these clients has, [K]."""
        return self._data.sizes(ids)

    def start(self, ids: Callable[[], Ids]) -> None:
        """Begin to load the examples of some clients as soon as it is possible, if it is.

        Args:
            ids: called in the thread, since to know who is next may take loading too.
        """
        with self._lock:
            if self._able and self._tried:
                self._submit(ids)
            elif self._able:
                self._asked.append(ids)

    def take(self, ids: Ids) -> None:
        """Have the examples of these clients ready for `block`: those loaded ahead, if they are.

        Raises:
            Exception: they cannot be loaded. What failed in the thread is tried here once more, in
                case it was the thread's fault.
        """
        with self._lock:
            if self._asked:  # the first of them is this one
                self._asked.popleft()
            loading = self._loading.popleft() if self._loading else None
        if loading is not None and loading.exception() is None:
            self._ready = loading.result()
            if np.array_equal(self._ready[0], ids):
                return
        self._ready = None
        if self._able and not self._tried:
            self._try(ids)
            return
        self._ready = ids, self._data.block(ids)
        if loading is not None and loading.exception() is not None:
            self._able = False

    def _try(self, ids: Ids) -> None:
        """The first block, and then those asked for meanwhile, if they may be loaded ahead."""
        before = torch.get_rng_state()
        self._ready = ids, self._data.block(ids)
        unmoved = torch.equal(before, torch.get_rng_state())
        with self._lock:
            self._able, self._tried = unmoved, True
            while self._asked:
                asked = self._asked.popleft()
                if self._able:
                    self._submit(asked)

    def _submit(self, ids: Callable[[], Ids]) -> None:
        def load() -> Loaded:
            chosen = ids()
            return chosen, self._data.block(chosen) if len(chosen) else None

        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "hanse-ahead", lambda: torch.set_num_threads(1))
        self._loading.append(self._thread.submit(load))

    def block(self, ids: Ids) -> Block:
        """The examples of these clients, which are not kept."""
        ready, self._ready = self._ready, None
        if ready is not None and ready[1] is not None and np.array_equal(ready[0], ids):
            return ready[1]
        return self._data.block(ids)

    def wait(self) -> None:
        """Until nothing is being loaded, so that the source may be used by others."""
        for loading in self._loading:
            loading.exception()

    def close(self) -> None:
        """Forget what was loaded, and end the thread."""
        self._loading.clear()
        self._asked.clear()
        self._ready = None
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = None
