"""Searches of a STAC API: all pages, in bounded time, and words that help where it can't be."""

from __future__ import annotations

import json
import socket
import sys
import time

import pytest
import stac_server

from rsqa.errors import SourceMissing, SourceRefused, UsageError
from rsqa.raster import stac_search
from rsqa.raster.stac import resolved
from rsqa.raster.stac_search import is_search, search_name


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(stac_search, "PAUSE_S", 0.0)


@pytest.fixture
def api(tmp_path):
    with stac_server.serving(tmp_path) as api:
        yield api


def scene(number: int, **assets: str) -> dict:
    """A degree wide, one beside the other."""
    return stac_server.item(f"s{number}", assets or {"visual": f"{number}.tif"}, (number, 50, number + 1, 51))


def test_all_pages_are_read_and_a_busy_server_is_asked_again(api):
    api.items = [scene(number) for number in range(5)]
    api.busy = 2
    found = resolved(f"{api.address}/v1/search?collections=c&key=secret", None)
    assert [one.argument for one in found.rasters] == [f"{api.address}/v1/{n}.tif" for n in range(5)]
    assert [query.get("token") for query in api.asked] == [None, "2", "4"]
    assert {query["key"] for query in api.asked} == {"secret"}


def test_an_item_lies_beside_its_own_address(api):
    api.items = [scene(0) | {"links": [{"rel": "self", "href": "https://host.example/items/s0.json"}]}]
    [found] = resolved(f"{api.address}/v1/search?collections=c", None).rasters
    assert found.argument == "https://host.example/items/0.tif"


def test_values_may_be_written_as_pystac_client_takes_them(api):
    api.items = [scene(0)]
    resolved(f"{api.address}/v1/search?collections=c&datetime=2024-05&query=eo:cloud_cover<10&limit=50", None)
    [query] = api.asked
    assert query["datetime"] == "2024-05-01T00:00:00Z/2024-05-31T23:59:59Z"
    assert json.loads(query["query"]) == {"eo:cloud_cover": {"lt": "10"}}
    assert query["limit"] == "50"


def test_the_area_bounds_a_search_that_names_no_place(api):
    api.items = [scene(0), scene(5)]
    found = resolved(f"{api.address}/v1/search?collections=c", None, (0.2, 50.2, 0.8, 50.8))
    assert [query["bbox"] for query in api.asked] == ["0.2,50.2,0.8,50.8"]
    assert [one.argument[-5:] for one in found.rasters] == ["0.tif"]  # also where the server does not mind the box
    resolved(f"{api.address}/v1/search?collections=c&bbox=0,0,9,90", None, (0.2, 50.2, 0.8, 50.8))
    assert api.asked[-1]["bbox"] == "0.0,0.0,9.0,90.0"
    with pytest.raises(SourceRefused, match="--aoi touches none of the 2 items"):
        resolved(f"{api.address}/v1/search?collections=c", None, (100.0, 0.0, 101.0, 1.0))


def test_across_the_antimeridian_what_may_be_near_is_read(api):
    api.items = [scene(0) | {"bbox": bbox} for bbox in ([179, 50, -179, 51], [-170, 50, -169, 51], [179, 10, -179, 11])]
    search = f"{api.address}/v1/search?collections=c"
    assert len(resolved(search, None, (-179.9, 50.2, -179.5, 50.8)).rasters) == 1
    assert len(resolved(search, None, (179.5, 50.2, -179.5, 50.8)).rasters) == 2


def test_an_item_without_the_asset_is_told_and_the_others_are_read(api):
    api.items = [scene(0, red="r.tif", blue="b.tif"), scene(1, blue="b.tif")]
    found = resolved(f"{api.address}/v1/search?collections=c", "red")
    assert [one.argument for one in found.rasters] == [f"{api.address}/v1/r.tif"]
    assert found.failed == (("s1", "item 's1' has no asset 'red'; choose with --asset: blue"),)
    with pytest.raises(SourceMissing, match="item 's0' has no asset 'nir'"):
        resolved(f"{api.address}/v1/search?collections=c", "nir")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "names no collection"),
        ("collection=c", "names no collection"),
        ("collections=c&datetime=yesterday", "can't be read"),
        ("collections=c&bbox=here", "can't be read"),
        ("collections=c&limit=many", "can't be read"),
    ],
)
def test_what_makes_no_sense_is_told_before_a_server_is_asked(api, query, words):
    with pytest.raises(UsageError, match=words) as caught:
        resolved(f"{api.address}/v1/search?{query}", None)
    assert "\n" not in str(caught.value)
    assert not api.asked


def test_too_many_items_are_not_read(api, monkeypatch):
    monkeypatch.setattr(stac_search, "MOST_ITEMS", 5)
    api.items = [scene(number) for number in range(9)]
    with pytest.raises(UsageError, match="more than 5 items; narrow it"):
        resolved(f"{api.address}/v1/search?collections=c", None)
    assert len(api.asked) == 3


def test_nothing_found_is_told(api):
    with pytest.raises(SourceRefused, match="holds no STAC items"):
        resolved(f"{api.address}/v1/search?collections=c", None)


@pytest.mark.parametrize("answer", ["[1, 2]", "never JSON", '{"features": 3}', '{"features": [{"id": 1}]}'])
def test_what_is_no_answer_is_refused_in_one_line(tmp_path, api, answer):
    (tmp_path / "collections/c").mkdir(parents=True)
    (tmp_path / "collections/c/items").write_text(answer)
    with pytest.raises(SourceRefused, match="no valid STAC") as caught:
        resolved(f"{api.address}/collections/c/items", None)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up_soon_and_no_secret_is_told(api):
    api.busy = 1000
    with pytest.raises(SourceMissing, match="can't be searched: HTTP 503") as caught:
        resolved(f"{api.address}/v1/search?collections=c&key=secret", None)
    assert api.busy == 1000 - 1 - stac_search.RETRIES
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(SourceMissing, match="can't be searched") as closed:
        resolved(f"http://user:word@127.0.0.1:{port}/search?collections=c&key=secret", None)
    assert time.monotonic() - started < 20
    for error in (caught.value, closed.value):
        assert not any(hidden in str(error) for hidden in ("secret", "word", "\n"))


def test_without_pystac_client_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pystac_client.exceptions", None)
    with pytest.raises(UsageError, match=r"pip install 'rsqa\[stac\]'"):
        resolved("https://host.example/search?collections=c", None)


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("https://h.example/v1/search?collections=sentinel-2-l2a&datetime=2024", "sentinel-2-l2a"),
        ("https://h.example/v1/collections/naip/items?datetime=2024", "naip"),
        ("https://h.example/search?collections=../etc", "search"),
        ("https://h.example/search/?ids=a", "search"),
        ("https://h.example/a.tif", None),
        ("search", None),
        ("/data/items", None),
    ],
)
def test_which_arguments_are_searches_and_how_their_folder_is_called(argument, name):
    assert is_search(argument) == (name is not None)
    assert name is None or search_name(argument) == name
