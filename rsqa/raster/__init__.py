"""Pixels and ground: sources, the tile grid, the stretch and reading."""
