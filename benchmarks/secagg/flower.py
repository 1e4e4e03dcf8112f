"""Flower's SecAgg+ on the same session: its own functions, without its transport.

    PYTHON benchmarks/secagg/flower.py CLIENTS WORDS GONE THRESHOLD

prints a line of JSON: processor seconds of one client (the median of three) and of the server. The
client's stages are the functions of its `secaggplus_mod`, whole. The server's are methods that need
a running federation, so what they do is done here with the functions that they call, on as many
vectors, shares and masks as in the session; the vectors and the shares are those of a few clients,
again and again.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.common import bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen,
    share_keys_plaintext_concat,
)
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

# Its package has a function of the same name.
mod = importlib.import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")

RANGE = 1 << 32
MEASURED = 3


@dataclass(frozen=True)
class Size:
    """Of a session on the complete graph."""

    clients: int
    words: int
    gone: int
    threshold: int

    @property
    def active(self) -> list[int]:
        return list(range(self.clients - self.gone))

    @property
    def dead(self) -> list[int]:
        return list(range(self.clients - self.gone, self.clients))


class Clients:
    """All clients' first stage; three of them go on."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.seconds = [0.0] * size.clients
        self.states = [mod.SecAggPlusState(nid=number) for number in range(size.clients)]
        config = {
            Key.SAMPLE_NUMBER: size.clients,
            Key.SHARE_NUMBER: size.clients,
            Key.THRESHOLD: size.threshold,
            Key.CLIPPING_RANGE: 8.0,
            Key.TARGET_RANGE: 1 << 22,
            Key.MOD_RANGE: RANGE,
            Key.MAX_WEIGHT: 1000.0,
        }
        self.keys: dict[str, Any] = {}
        for number in range(size.clients):
            own = self._timed(number, mod._setup, config)  # noqa: SLF001 - the client's stage
            self.keys[str(number)] = [own[Key.PUBLIC_KEY_1], own[Key.PUBLIC_KEY_2]]

    def _timed(self, number: int, stage: Any, *arguments: Any) -> Any:  # noqa: ANN401
        start = time.process_time()
        found = stage(self.states[number], *arguments)
        self.seconds[number] += time.process_time() - start
        return found

    def run(self, number: int) -> list[bytes]:
        """The other stages of one client; its masked vector."""
        self._timed(number, mod._share_keys, dict(self.keys))  # noqa: SLF001
        own = self.states[number]
        shares = own.rd_seed_share_dict[number], own.sk1_share_dict[number]
        sources = [other for other in range(self.size.clients) if other != number]
        # What the others would have sealed for it, with shares of the right length.
        sealed = [
            encrypt(own.ss2_dict[other], share_keys_plaintext_concat(other, number, *shares))
            for other in sources
        ]
        vector = np.random.default_rng(0).normal(0, 1, self.size.words).astype(np.float32)
        config = {Key.SOURCE_LIST: sources, Key.CIPHERTEXT_LIST: sealed}
        fitted = ndarrays_to_parameters([vector])
        sent = self._timed(number, mod._collect_masked_vectors, config, 1000, fitted)  # noqa: SLF001
        lists = {
            Key.ACTIVE_NODE_ID_LIST: self.size.active,
            Key.DEAD_NODE_ID_LIST: self.size.dead,
        }
        self._timed(number, mod._unmask, lists)  # noqa: SLF001
        masked: list[bytes] = sent[Key.MASKED_PARAMETERS]
        return masked


def server(size: Size, masked: list[list[bytes]], clients: Clients) -> float:
    """The seconds of its sum, its secrets and its masks, as `secaggplus_workflow` has them."""
    state = clients.states[0]
    held = len(size.active)
    seeds = create_shares(state.rd_seed, size.threshold, size.clients)[:held]
    private = create_shares(state.sk1, size.threshold, size.clients)[:held]
    start = time.process_time()
    total: Any = None
    for number in size.active:
        vector = [bytes_to_ndarray(part) for part in masked[number % len(masked)]]
        total = vector if total is None else parameters_addition(total, vector)
    total = parameters_mod(total, RANGE)
    shapes = [part.shape for part in total]
    for _ in size.active:
        mask = pseudo_rand_gen(combine_shares(seeds), RANGE, shapes)
        total = parameters_subtraction(total, mask)
    for _ in size.dead:
        secret = combine_shares(private)
        for neighbour in range(1, size.clients):
            public = clients.keys[str(neighbour)][0]
            key = generate_shared_key(bytes_to_private_key(secret), bytes_to_public_key(public))
            total = parameters_addition(total, pseudo_rand_gen(key, RANGE, shapes))
    parameters_mod(total, RANGE)
    return time.process_time() - start


def main() -> None:
    size = Size(*map(int, sys.argv[1:]))
    clients = Clients(size)
    masked = [clients.run(number) for number in range(MEASURED)]
    client = statistics.median(clients.seconds[:MEASURED])
    print(json.dumps({"client": client, "server": server(size, masked, clients)}))


if __name__ == "__main__":
    main()
