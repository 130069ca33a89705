"""rsqa asks georeferenced imagery questions in words and writes the answers on the ground."""

__version__ = "0.1.0"
