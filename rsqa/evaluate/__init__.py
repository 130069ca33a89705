"""Evaluation: benchmarks, metrics and their intervals."""
