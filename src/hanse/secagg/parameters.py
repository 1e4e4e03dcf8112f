"""How many neighbours, and which threshold: computed from what is assumed of the clients.

A graph in which each of n clients has k neighbours serves if, but for a chance of `2^-security`,

- no honest client has `threshold` corrupt neighbours, who together have its secrets;
- the honest clients that stay are connected: between two parts the masks do not cancel, so the sum
  of each part would be seen. On the ring a part is cut off by k/2 neighbours in a row that are
  corrupt or gone.

and if, but for a chance of `2^-correctness`, every client keeps `threshold` neighbours that answer.
Clients stand on the ring in random order, so the numbers of corrupt or missing neighbours are
hypergeometric; the bounds are summed over all clients. Source: Bell et al., CCS 2020.

That is for a server that keeps to the protocol (`server="honest-but-curious"`). One that does not
may choose whom to declare gone, after it has seen the graph, and tell everybody something else.
Then all who open must have seen one list, which takes a quorum of signatures, and two conditions
stand for the second one. docs/secure-aggregation.md proves that they suffice. For every honest
client,

- fewer than `2 * threshold - k - 1` of its neighbours are corrupt;
- of k/2 in a row beside it, fewer than `threshold - k/2 - 1` are corrupt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from hanse.core.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["honest-but-curious", "malicious"]


@dataclass(frozen=True)
class Assumptions:
    """What is assumed of a cohort, and how sure one wants to be.

    Attributes:
        corrupt: at most this part of the clients works for the server.
        dropout: at most this part is gone before the end of the round.
        server: `"malicious"`: it may send anything to anybody. `"honest-but-curious"`: it keeps to
            the protocol, and those who drop out are not chosen by anybody who saw the graph.
        security: bits; the chance that the graph gives something away is `2^-security` at most.
        correctness: bits; likewise, that a round fails although no more than `dropout` are gone.
        grinding: bits; whoever chooses the graph's seed can try `2^grinding` of them. Zero where
            nobody chooses it who might be corrupt; 64 where the server does.

    Raises:
        ConfigError: what cannot be meant.
    """

    corrupt: float = 1 / 3
    dropout: float = 0.1
    server: Kind = "malicious"
    security: int = 40
    correctness: int = 30
    grinding: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value in (("corrupt", self.corrupt), ("dropout", self.dropout)):
            if not 0 <= value < 1:
                raise ConfigError(
                    f"Assumptions with {name}={value!r}",
                    why="it is a part of the clients, and never all of them",
                    instead="a number from 0 to below 1, 0.1 for example",
                )
        if self.server not in ("honest-but-curious", "malicious"):
            raise ConfigError(
                f"Assumptions with server={self.server!r}",
                why="the conditions on the graph depend on what the server may do",
                instead="'malicious' or 'honest-but-curious'",
            )
        for name, value in (("security", self.security), ("correctness", self.correctness)):
            if not 1 <= value <= 256:
                raise ConfigError(
                    f"Assumptions with {name}={value!r}",
                    why="it is a number of bits",
                    instead="a number from 1 to 256; 40 and 30 are usual",
                )
        if not 0 <= self.grinding <= 256:
            raise ConfigError(
                f"Assumptions with grinding={self.grinding!r}",
                why="it is how many seeds somebody can try, in bits",
                instead="0 where nobody corrupt chooses the seed, else 64",
            )

    def corrupt_of(self, clients: int) -> int:
        """The most corrupt clients of so many."""
        return _part(self.corrupt, clients)

    def gone_of(self, clients: int) -> int:
        """The most clients of so many that drop out."""
        return _part(self.dropout, clients)


@dataclass(frozen=True)
class Parameters:
    """What was computed; `str` of it says so in words.

    Attributes:
        clients: n.
        degree: k; `clients - 1` is the complete graph.
        threshold: how many shares give a secret back.
        quorum: how many clients must have seen the same survivors before anything is opened.
        insecure: log2 of the chance that the graph gives something away; -inf where it cannot.
        failing: log2 of the chance that a round fails with the assumed drop-out.
        assumptions: what they were computed from.
    """

    clients: int
    degree: int
    threshold: int
    quorum: int
    insecure: float
    failing: float
    assumptions: Assumptions

    def __str__(self) -> str:
        """Assumptions and results, a line each."""
        a, n = self.assumptions, self.clients
        graph = "complete" if self.degree == n - 1 else f"{self.degree} neighbours each"
        return (
            f"{n} clients, {graph}, threshold {self.threshold}, "
            f"quorum {self.quorum}\n"
            f"assumed: at most {a.corrupt_of(n)} corrupt, at most {a.gone_of(n)} gone, "
            f"a {a.server} server\n"
            f"chance of a graph that gives something away: {_chance(self.insecure)}\n"
            f"chance that the round fails for lack of shares: {_chance(self.failing)}"
        )


def plan(clients: int, assumptions: Assumptions) -> Parameters:
    """The fewest neighbours that do, and the largest threshold with them; else the complete graph.

    Raises:
        ConfigError: fewer than three clients, or assumptions that no graph meets.
    """
    check_size(clients)
    quorum = _quorum(clients, assumptions)
    for degree in range(2, clients - 1, 2):
        insecure = _insecure(clients, degree, assumptions)
        failing = _failing(clients, degree, assumptions)
        fits = np.flatnonzero(
            (insecure <= -assumptions.security) & (failing <= -assumptions.correctness)
        )
        if fits.size and (quorum or 0) <= clients - assumptions.gone_of(clients):
            t = int(fits[-1])
            chances = float(insecure[t]), float(failing[t])
            return Parameters(clients, degree, t, quorum or t, *chances, assumptions)
    return _complete(clients, assumptions)


def insecurity(
    clients: int, degree: int, threshold: int, quorum: int, assumptions: Assumptions
) -> float:
    """log2 of the chance that a graph gives something away; inf where it is no chance but certain.

    Args:
        clients: n.
        degree: k; `clients - 1` is the complete graph.
        threshold: how many shares give a secret back.
        quorum: how many clients must have seen the same survivors.
        assumptions: of the corrupt clients and the server.
    """
    if quorum < (_quorum(clients, assumptions) or 0):
        return math.inf
    if degree == clients - 1:
        return -math.inf if threshold >= _least_threshold(clients, assumptions) else math.inf
    if threshold > degree:
        return math.inf
    return float(_insecure(clients, degree, assumptions)[threshold])


def default_threshold(clients: int) -> int:
    """`floor(2n / 3) + 1`, for the complete graph (Bonawitz et al. 2017)."""
    return 2 * clients // 3 + 1


def check_size(clients: int) -> None:
    """Refuse fewer than three.

    Raises:
        ConfigError: with one or two, a client is alone, or the other one subtracts itself.
    """
    if clients < 3:
        raise ConfigError(
            f"secure aggregation among {clients}",
            why="of two clients, each learns the other's vector from the sum; one has no sum",
            instead="three clients or more; five or more where one may drop out",
        )


def _complete(clients: int, assumptions: Assumptions) -> Parameters:
    stay = clients - assumptions.gone_of(clients)
    least = _least_threshold(clients, assumptions)
    if least > stay:
        raise ConfigError(
            f"{clients} clients of which {assumptions.corrupt_of(clients)} may be corrupt and "
            f"{clients - stay} gone",
            why=f"with a {assumptions.server} server the threshold must be {least} at least, and "
            f"only {stay} stay",
            instead="fewer corrupt or missing clients, where that may be assumed",
        )
    threshold = min(stay, max(least, default_threshold(clients)))
    return Parameters(clients, clients - 1, threshold, threshold, -math.inf, -math.inf, assumptions)


def _least_threshold(clients: int, assumptions: Assumptions) -> int:
    """In the complete graph."""
    return _quorum(clients, assumptions) or assumptions.corrupt_of(clients) + 1


def _quorum(clients: int, assumptions: Assumptions) -> int | None:
    """Of so many, any two share an honest client, who signs one list: 2q > n + corrupt."""
    if assumptions.server != "malicious":
        return None
    return (clients + assumptions.corrupt_of(clients)) // 2 + 1


# ---------------------------------------------------------------- chances, as log2, by threshold
def _insecure(clients: int, degree: int, assumptions: Assumptions) -> NDArray[np.float64]:
    """`[degree + 1]`: log2 of the chance, for each threshold from 0 to the degree."""
    corrupt, gone = assumptions.corrupt_of(clients), assumptions.gone_of(clients)
    thresholds, half = np.arange(degree + 1), degree // 2
    # at_least[x]: the chance that one client has x corrupt neighbours or more
    at_least = _upper_tail(clients - 1, corrupt, degree)
    if assumptions.server == "malicious":
        answers = at_least[np.clip(2 * thresholds - degree - 1, 0, degree + 1)]
        row = _upper_tail(clients, corrupt, half)
        sides = row[np.clip(thresholds - half - 1, 0, half + 1)]
        chances = answers, sides
    else:
        # k/2 clients in a row, each corrupt or gone (the bound of Bell et al.).
        apart = (min(1.0, (corrupt + gone) / clients)) ** half
        chances = at_least[thresholds], np.full(degree + 1, apart)
    with np.errstate(divide="ignore"):
        worst = np.maximum(*(np.log2(chance) for chance in chances))
    # Each of the two has half of the chance that is allowed.
    found: NDArray[np.float64] = worst + 1 + math.log2(clients) + assumptions.grinding
    return found


def _failing(clients: int, degree: int, assumptions: Assumptions) -> NDArray[np.float64]:
    """`[degree + 1]`: log2 of the chance that somebody keeps fewer neighbours than threshold."""
    gone = _upper_tail(clients - 1, assumptions.gone_of(clients), degree)
    # fewer than t of k stay: k - t + 1 or more are gone
    few = gone[degree + 1 - np.arange(degree + 1)]
    with np.errstate(divide="ignore"):
        found: NDArray[np.float64] = np.log2(few) + math.log2(clients)
    return found


@lru_cache(maxsize=4096)
def _upper_tail(population: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """`[drawn + 2]`: the chances of x or more marked ones among `drawn`, x = 0 to `drawn + 1`."""
    marked = min(marked, population)
    logs = _log_factorials(population)

    def log_choose(n: NDArray[np.int64] | int, k: NDArray[np.int64] | int) -> NDArray[np.float64]:
        found: NDArray[np.float64] = logs[n] - logs[k] - logs[np.asarray(n) - k]
        return found

    x = np.arange(max(0, drawn - (population - marked)), min(drawn, marked) + 1)
    ways = log_choose(marked, x) + log_choose(population - marked, drawn - x)
    chances = np.zeros(drawn + 2)
    chances[x] = np.exp(ways - log_choose(population, drawn))
    return np.minimum(np.cumsum(chances[::-1])[::-1], 1.0)  # the small ones are added first


@lru_cache(maxsize=8)
def _log_factorials(most: int) -> NDArray[np.float64]:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])


def _part(fraction: float, clients: int) -> int:
    """The most whole clients that are at most this part of them; 0.1 of 1000 is 100."""
    return math.floor(fraction * clients + 1e-9)


def _chance(log2: float) -> str:
    return "none" if log2 == -math.inf else f"2^{log2:.1f}"
