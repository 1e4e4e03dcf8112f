"""What is measured of the privacy of runs."""
