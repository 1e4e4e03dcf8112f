"""Experiment files: TOML in, experiments out, and back. The only place that sees TOML."""

from hanse.config.beginning import beginning, name_of
from hanse.config.experiment_file import ExperimentFile, read_experiment, with_overrides

__all__ = ["ExperimentFile", "beginning", "name_of", "read_experiment", "with_overrides"]
