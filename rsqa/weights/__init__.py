"""Embedded weights. The folder tinyrs-nano holds the default model."""
