"""What everything stands on: layouts, the types of a round, keys, errors."""
