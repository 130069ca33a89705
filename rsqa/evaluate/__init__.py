"""Evaluation: benchmarks, scores, their intervals and what they must be compared with."""
