"""Engines: chips and questions in, columnar replies out."""
