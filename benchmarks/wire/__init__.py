"""How fast messages are written and read, beside copying memory and beside zstd."""
