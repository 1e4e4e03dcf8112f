"""What a round releases, as an accountant reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hanse.core.errors import ConfigError, did_you_mean

Adjacency = Literal["add-remove", "replace", "zero-out", "add-remove-example", "zero-out-example"]
"""Neighbouring federations differ by a client that one of them lacks, or that has other data in the
other, or that takes part in both and sends zeros in one (where clients add the noise); or by one
example of one client that one of them lacks (`"zero-out-example"`: where clients add the noise).
Sensitivities, and with them noise multipliers, are those of the adjacency named; what is said of
one promises nothing for another."""

Unit = Literal["client", "example"]
"""What neighbouring federations differ by: all the data of a client, or one example of a client."""

Sampling = Literal["none", "poisson", "without-replacement"]


@dataclass(frozen=True)
class GaussianEvent:
    """So many releases of a sum with Gaussian noise.

    Attributes:
        noise_multiplier: the noise's standard deviation divided by the sum's L2 sensitivity under
            `adjacency`; above 0.
        sampling: how the round's cohort was really drawn. `"none"`: nothing is gained by sampling,
            because everybody takes part or because the cohort is not secret.
        rate: the probability that a client is in the cohort (an example in the batch, with
            `"add-remove-example"`); 1 with `"none"`. With `"without-replacement"` it is
            `cohort / population`.
        population: how many clients there are, for `"without-replacement"`; else 0.
        adjacency: what neighbouring federations are.
        count: how many times.

    Raises:
        ConfigError: what cannot be.
    """

    noise_multiplier: float
    sampling: Sampling = "none"
    rate: float = 1.0
    population: int = 0
    adjacency: Adjacency = "add-remove"
    count: int = 1

    def __post_init__(self) -> None:
        """Refuse what no accountant could read."""
        if not self.noise_multiplier > 0 or self.noise_multiplier == float("inf"):
            raise ConfigError(
                f"a noise multiplier of {self.noise_multiplier!r}",
                why="without noise there is no guarantee to account for",
                instead="a number above 0, such as 1.0",
            )
        if not 0 < self.rate <= 1 or (self.sampling == "none" and self.rate != 1):
            raise ConfigError(
                f"sampling {self.sampling!r} at rate {self.rate!r}",
                why="the rate is the probability that a client takes part, and 1 without sampling",
                instead="a rate above 0 and at most 1",
            )
        for value, kind in ((self.sampling, Sampling), (self.adjacency, Adjacency)):
            if value not in get_args(kind):
                raise ConfigError(
                    f"{value!r} as sampling or adjacency",
                    why="no proof is known for it by this name",
                    instead=did_you_mean(str(value), get_args(kind)),
                )
        if self.sampling == "without-replacement":
            self._check_cohort()
        if not isinstance(self.count, int) or self.count < 1:
            raise ConfigError(
                f"an event that happened {self.count} times",
                why="what did not happen is not accounted for",
                instead="a whole number of at least 1",
            )

    def _check_cohort(self) -> None:
        """Without replacement, cohorts have a size."""
        cohort = self.rate * self.population
        if self.population < 1 or round(cohort) < 1 or abs(cohort - round(cohort)) > 1e-6 * cohort:
            raise ConfigError(
                f"cohorts of {self.rate!r} times {self.population} clients, without replacement",
                why="a cohort has a whole number of clients, at least one",
                instead="rate=cohort / population and population=…, "
                "such as rate=100 / 10_000, population=10_000",
            )


@dataclass(frozen=True)
class Budget:
    """What may be spent on a data set.

    Attributes:
        epsilon: the most that all releases together may cost, above 0.
        delta: the probability that the bound does not hold, above 0 and well below one divided by
            the number of clients.
        accountant: whose arithmetic decides: `"rdp"` (fast, an upper bound that is a little loose)
            or `"pld"` (tight).
    """

    epsilon: float
    delta: float
    accountant: Literal["rdp", "pld"] = "pld"

    def __post_init__(self) -> None:
        """Refuse what is no budget."""
        if not 0 < self.epsilon < float("inf"):
            raise ConfigError(
                f"a budget of epsilon={self.epsilon!r}",
                why="it is the most that may be spent",
                instead="a number above 0, such as 8.0",
            )
        if not 0 < self.delta < 1:
            raise ConfigError(
                f"a budget of delta={self.delta!r}",
                why="it is a probability, and privacy may be lost with it",
                instead="a number well below 1 / clients, such as 1e-5",
            )
