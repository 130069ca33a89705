"""Outputs: GeoParquet parts and tables, the Zarr cube, the STAC item."""
