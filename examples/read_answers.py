"""Read the answers of `rsqa ask` as tables: python read_answers.py DIR."""

import sys
from pathlib import Path

import duckdb
import geopandas

folder = Path(sys.argv[1])
answers = folder / "answers.parquet"  # a file, or a folder of files for very large mosaics

# A GeoDataFrame: one row per tile and question, with the outline of the tile.
table = geopandas.read_parquet(answers)
water = table[(table.question_id == "water") & (table.value == "yes")]
print(f"{len(water)} tiles with water, in {table.crs.to_string()}")
water.to_file(folder / "water.gpkg", driver="GPKG")

# SQL over the same file, without reading all of it.
files = answers / "*.parquet" if answers.is_dir() else answers
print(
    duckdb.sql(
        f"""
        SELECT question_id, value, count(*) AS tiles, round(avg(confidence), 2) AS confidence
        FROM '{files}' WHERE status = 'ok' AND kind <> 'open'
        GROUP BY ALL ORDER BY question_id, tiles DESC
        """
    )
)
