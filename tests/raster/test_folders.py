from __future__ import annotations

import pytest

from rsqa.errors import SourceMissing, UsageError
from rsqa.raster.folders import expand, gather


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "in"
    for name in ("b/2.tif", "b/10.TIF", "a.png", "b.jpg", "b/c/x.jp2", "b/notes.txt", ".hidden/x.tif", "b/.x.tif"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(*arguments, **patterns) -> list[str]:
    return [name for _, name in gather(list(map(str, arguments)), **patterns).files]


def test_all_rasters_below_a_folder_in_a_stable_order(folder):
    assert names(folder) == ["a.png", "b/10.TIF", "b/2.tif", "b/c/x.jp2", "b.jpg"]
    assert all(path == str(folder / name) for path, name in gather([str(folder)]).files)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({"include": ["*.tif"]}, ["b/2.tif"]),
        ({"include": ["b/*"]}, ["b/10.TIF", "b/2.tif", "b/c/x.jp2"]),
        ({"exclude": ["b/*"]}, ["a.png", "b.jpg"]),
        ({"include": ["*.jp2", "*.png"], "exclude": ["a.*"]}, ["b/c/x.jp2"]),
    ],
)
def test_patterns_are_about_names_and_paths(folder, patterns, expected):
    assert names(folder, **patterns) == expected


def test_links_are_followed_within_the_folder_only(folder, tmp_path):
    (tmp_path / "secret.tif").touch()
    (folder / "out.tif").symlink_to(tmp_path / "secret.tif")
    (folder / "within.tif").symlink_to(folder / "a.png")
    (folder / "loop").symlink_to(folder)
    listing = gather([str(folder)])
    assert [name for _, name in listing.files] == ["a.png", "b/10.TIF", "b/2.tif", "b/c/x.jp2", "b.jpg", "within.tif"]
    assert listing.notes == ("links that lead out of their folder, not read: 1",)


def test_our_own_outputs_are_no_input(folder):
    (folder / "in.rsqa" / "class_rasters").mkdir(parents=True)
    (folder / "in.rsqa" / ".rsqa.lock").touch()
    (folder / "in.rsqa" / "class_rasters" / "b.tif").touch()
    assert not any("rsqa" in name for name in names(folder))


def test_folders_and_files_together_have_names_of_their_own(folder, tmp_path):
    other = tmp_path / "other" / "in"
    other.mkdir(parents=True)
    (other / "a.png").touch()
    assert names(folder, other, folder / "b.jpg", exclude=["b/*"]) == [
        f"{tmp_path.name}/in/a.png", "b.jpg", "other/in/a.png",
    ]  # fmt: skip


def test_nothing_wanted_is_missing(folder):
    with pytest.raises(SourceMissing, match="--include"):
        gather([str(folder)], include=["*.webp"])


def test_names_are_short_and_unique(tmp_path):
    for name in ("x/a.tif", "y/a.tif", "x/b.tif", "u/x/c.tif", "w/x/c.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    arguments = [str(tmp_path / n) for n in ("x/a.tif", "y/a.tif", "x/b.tif", "u/x/c.tif", "w/x/c.tif", "x/b.tif")]
    assert [name for _, name in expand(arguments)] == ["x/a.tif", "y/a.tif", "b.tif", "u/x/c.tif", "w/x/c.tif"]
    assert [path for path, _ in expand(arguments)] == arguments[:-1]


def test_names_hold_no_credentials():
    typed = ["/vsicurl/https://user:pass@host/x/a.tif?X-Amz-Signature=s", "/vsicurl/https://user:pass@host/y/a.tif"]
    assert expand(typed) == [(typed[0], "x/a.tif"), (typed[1], "y/a.tif")]


def test_a_folder_is_refused_with_a_hint(tmp_path):
    with pytest.raises(UsageError, match=r"\*\.tif"):
        expand([str(tmp_path)])
