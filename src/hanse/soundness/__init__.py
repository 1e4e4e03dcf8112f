"""What does not compose soundly is refused before the run, by name, with the remedy."""

from hanse.soundness.client_privacy import check_client_privacy, seed_of_rounds
from hanse.soundness.composition import check, check_stragglers, check_whole_gradients
from hanse.soundness.compression import check_compression
from hanse.soundness.exact_numbers import about_shown, check_shown, what_is_shown
from hanse.soundness.example_privacy import check_example_privacy, check_examples_apart
from hanse.soundness.secure_sums import check_secure_sums

__all__ = [
    "about_shown",
    "check",
    "check_client_privacy",
    "check_compression",
    "check_example_privacy",
    "check_examples_apart",
    "check_secure_sums",
    "check_shown",
    "check_stragglers",
    "check_whole_gradients",
    "seed_of_rounds",
    "what_is_shown",
]
