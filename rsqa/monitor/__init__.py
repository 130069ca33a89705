"""Scenes that keep coming: asked as they arrive, kept as one dataset on a fixed grid, compared with what was there."""
