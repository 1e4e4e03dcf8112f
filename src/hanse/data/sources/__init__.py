"""Where federations come from: bundled, from scikit-learn, or fetched benchmarks."""
