"""stac-geoparquet as it is published: properties as columns, assets as a struct of structs, geometry in WKB."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import geopandas
import pyarrow as pa
import pytest
import shapely
import stac_server
from pyarrow import parquet

from rsqa.errors import SourceMissing, SourceRefused, UsageError
from rsqa.raster.stac import Dated, resolved

ASSET = pa.struct({"href": pa.string(), "type": pa.string(), "title": pa.string(), "roles": pa.list_(pa.string())})
SCHEMA = pa.schema(
    {
        "type": pa.string(), "stac_version": pa.string(), "stac_extensions": pa.list_(pa.string()), "id": pa.string(),
        "geometry": pa.binary(),
        "bbox": pa.struct({side: pa.float64() for side in ("xmin", "ymin", "xmax", "ymax")}),
        "links": pa.list_(pa.struct({"href": pa.string(), "rel": pa.string(), "type": pa.string()})),
        "assets": pa.struct({"visual": ASSET, "thumbnail": ASSET}), "collection": pa.string(),
        "datetime": pa.timestamp("ms", "UTC"), "start_datetime": pa.timestamp("ms", "UTC"),
        "eo:cloud_cover": pa.float64(),
    }
)  # fmt: skip
GEO = {"version": "1.1.0", "primary_column": "geometry",
       "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}}}  # fmt: skip
NOON, MORNING = datetime(2024, 5, 6, 12, tzinfo=UTC), datetime(2024, 5, 6, 7, tzinfo=UTC)


def row(number: int, **properties) -> dict:
    visual = {"href": f"./{number}.tif", "type": stac_server.COG, "title": "True colour", "roles": ["data"]}
    west = float(number)
    return {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": [], "id": f"s{number}", "collection": "c",
        "geometry": shapely.box(west, 50, west + 1, 51).wkb, "links": [], "datetime": NOON, "eo:cloud_cover": 3.5,
        "bbox": {"xmin": west, "ymin": 50.0, "xmax": west + 1, "ymax": 51.0},
        "assets": {"visual": visual, "thumbnail": visual | {"href": "look.jpg", "type": "image/jpeg"}},
    } | properties  # fmt: skip


def write(path: Path, *rows: dict, schema: pa.Schema = SCHEMA) -> str:
    table = pa.Table.from_pylist(list(rows), schema.with_metadata({"geo": json.dumps(GEO)}))
    parquet.write_table(table, path)
    return str(path)


def test_items_of_a_table_name_rasters_beside_it(tmp_path):
    path = write(
        tmp_path / "items.parquet",
        row(0),
        row(1, datetime=None, start_datetime=MORNING),
        row(2, assets=row(2)["assets"] | {"visual": None}),
        row(3, assets={"visual": {"href": "https://host.example/3.tif", "type": stac_server.COG}}),
    )
    assert len(geopandas.read_parquet(path)) == 4  # it is GeoParquet
    found = resolved(path, "visual")
    assert found.rasters == (
        Dated(str(tmp_path / "0.tif"), NOON),
        Dated(str(tmp_path / "1.tif"), MORNING),
        Dated("https://host.example/3.tif", NOON),
    )
    assert found.failed == (("s2", "item 's2' has no asset 'visual'; choose with --asset: thumbnail"),)
    with pytest.raises(UsageError, match="item 's2' has 0 TIFFs"):
        resolved(path, None)
    with pytest.raises(SourceMissing, match="no asset 'nir'"):
        resolved(path, "nir")


def test_only_items_in_the_area_are_read(tmp_path):
    path = write(tmp_path / "items.parquet", *map(row, range(9)), row(20, geometry=None))
    found = resolved(path, None, (3.5, 50.5, 4.5, 50.6))
    assert [Path(one.argument).name for one in found.rasters] == ["3.tif", "4.tif", "20.tif"]


def test_a_table_on_a_server_names_addresses(tmp_path):
    write(tmp_path / "items.parquet", row(0))
    with stac_server.serving(tmp_path) as api:
        [found] = resolved(f"{api.address}/items.parquet?key=secret", None).rasters
        assert found.argument == f"{api.address}/0.tif"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (pa.schema({"id": pa.string(), "geometry": pa.binary()}), "no column 'assets'"),
        (SCHEMA.set(7, pa.field("assets", pa.string())), "no valid STAC"),
        (SCHEMA.set(4, pa.field("geometry", pa.int64())), "no valid STAC"),
        (SCHEMA.set(9, pa.field("datetime", pa.string())), "no valid STAC"),
    ],
)
def test_what_is_another_table_is_refused_in_one_line(tmp_path, schema, words):
    values = {"assets": "{}", "geometry": 1, "datetime": "yesterday"}
    one = {name: values[name] if schema.field(name).type != SCHEMA.field(name).type else row(0)[name]
           for name in schema.names if name in row(0)}  # fmt: skip
    with pytest.raises(SourceRefused, match=words) as caught:
        resolved(write(tmp_path / "items.parquet", one, schema=schema), None)
    assert "\n" not in str(caught.value)


def test_what_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "items.parquet").write_bytes(b"cut short")
    with pytest.raises(SourceRefused, match=r"'items.parquet' is no valid STAC"):
        resolved(str(tmp_path / "items.parquet"), None)
    with pytest.raises(SourceMissing, match="there is no file"):
        resolved(str(tmp_path / "none.parquet"), None)
