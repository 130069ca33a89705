"""From a dataset to its changes: whatever way it grew, and however noisy the nights were."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
from made_dataset import MARK, grid, write_answers
from painted_scenes import when

from rsqa.monitor.changes import basis_of, read_changes, replay, write_changes
from rsqa.monitor.dataset import drop_replaced, ledger, pieces_of, write_file
from rsqa.monitor.watch import Rule

SIDE = 6


def world(rng, nights):
    """(nights, side, side) whether a thing is there: each tile changes at most twice, far apart."""
    there = np.zeros((nights, SIDE, SIDE), bool)
    for row in range(SIDE):
        for col in range(SIDE):
            nights_apart = np.arange(10, nights - 10, 25)
            most = min(2, len(nights_apart))
            moments = np.sort(rng.choice(nights_apart, rng.integers(0, most + 1), replace=False))
            there[:, row, col] = rng.random() < 0.3
            for moment in moments:
                there[moment:, row, col] ^= True
    return there


def seen(rng, there, wrong=0.02, hidden=0.3, spread=1.0):
    """What a model says: log odds of 2.5 with noise, wrong altogether now and then, unknown below clouds."""
    odds = np.where(there, 2.5, -2.5) + spread * rng.standard_normal(there.shape)
    odds = np.where(rng.random(there.shape) < wrong, -odds, odds)
    return np.where(rng.random(there.shape) < hidden, np.nan, 1 / (1 + np.exp(-odds)))


def found(out, rule=None):
    table = replay(ledger(out), rule or Rule(), grid())
    columns = (table[name].to_pylist() for name in ("tile_row", "tile_col", "value_after", "first_after", "change_id"))
    return list(zip(*columns, strict=True))


def true_changes(there):
    return [(row, col, bool(there[n, row, col]), n) for n in range(1, len(there)) for row, col in
            zip(*np.nonzero(there[n] != there[n - 1]), strict=True)]  # fmt: skip


def score(found, truth):
    """(precision, recall): each change of the truth is met by one report of the following three weeks."""
    left, hits = list(truth), 0
    for row, col, value, first, _ in found:
        night = (first - when(0)).total_seconds() / 86_400
        match = next((t for t in left if t[:3] == (row, col, value == "yes") and t[3] <= night < t[3] + 21), None)
        if match:
            left.remove(match)
            hits += 1
    return hits / max(1, len(found)), hits / max(1, len(truth))


def test_noisy_nights(tmp_path):
    """The default rule reports nearly all that changed and next to nothing else; believing each night does not."""
    rng = np.random.default_rng(3)
    there = world(rng, 120)
    for night, shares in enumerate(seen(rng, there)):
        write_answers(tmp_path, when(night), shares, name=f"{night}.tif", fingerprint=f"{night:064x}")
    truth = true_changes(there)
    assert len(truth) > 20
    precision, recall = score(found(tmp_path), truth)
    print(f"default rule: precision {precision:.3f}, recall {recall:.3f} of {len(truth)} changes")
    assert precision >= 0.95
    assert recall >= 0.95
    assert score(found(tmp_path, Rule(confirmations=1)), truth)[0] < 0.5


def test_nothing_changes_where_nothing_does(tmp_path):
    rng = np.random.default_rng(4)
    for night in range(30):
        shares = seen(rng, np.zeros((SIDE, SIDE), bool), wrong=0.0)
        write_answers(tmp_path, when(night), shares, name=f"{night}.tif", fingerprint=f"{night:064x}")
    assert found(tmp_path) == []


def test_the_order_of_arrival_and_compaction_change_nothing(tmp_path):
    rng = np.random.default_rng(5)
    there = world(rng, 40)
    nights = list(enumerate(seen(rng, there)))
    for folder, order in (("first", nights), ("other", rng.permutation(len(nights)))):
        for entry in order:
            night, shares = entry if folder == "first" else nights[int(entry)]
            # two a day, so that files share a folder
            write_answers(tmp_path / folder, when(night / 2), shares, name=f"{night}.tif", fingerprint=f"{night:064x}")
    first = replay(ledger(tmp_path / "first"), Rule(), grid())
    assert first.num_rows > 1
    assert replay(ledger(tmp_path / "other"), Rule(), grid()).equals(first)
    assert basis_of(ledger(tmp_path / "other"), Rule()) == basis_of(ledger(tmp_path / "first"), Rule())
    write_changes(tmp_path / "c.parquet", first, grid(), "basis")
    again, basis = read_changes(tmp_path / "c.parquet")
    assert again.equals(first)
    assert basis == "basis"


def test_an_observation_that_is_replaced_is_gone_also_from_a_file_of_many(tmp_path):
    known = np.full((2, 2), 0.9)
    old = write_answers(tmp_path, when(0), known, name="a.tif", fingerprint="0" * 64)
    write_answers(tmp_path, when(0.1), known, name="b.tif", fingerprint="1" * 64)
    [one, two] = ledger(tmp_path)
    together = one.path.with_name("together.parquet")
    write_file(together, [*pieces_of(one), *pieces_of(two)], grid())
    one.path.unlink()
    two.path.unlink()
    new = write_answers(tmp_path, when(0), 1 - known, name="a.tif", fingerprint="2" * 64, replaces=(old.id,))
    assert sum(len(file.observations) for file in ledger(tmp_path)) == 3
    drop_replaced(ledger(tmp_path), grid())
    left = [observation for file in ledger(tmp_path) for observation in file.observations]
    assert {observation.files[0][0] for observation in left} == {"a.tif", "b.tif"}
    assert replace(new, replaces=()) in left
    assert sum(rows.num_rows for file in ledger(tmp_path) for _, rows in pieces_of(file)) == 8


def test_rows_that_come_in_other_pieces_are_the_same_bytes(tmp_path):
    shares = np.random.default_rng(7).random((150, 150))  # more rows than a page holds
    write_answers(tmp_path, when(0), shares, name="a.tif", fingerprint="0" * 64)
    [file] = ledger(tmp_path)
    [(observation, rows)] = pieces_of(file)
    before = file.path.read_bytes()
    pieces = pa.concat_tables([rows.slice(at, 777) for at in range(0, len(rows), 777)])
    write_file(file.path, [(observation, pieces)], grid())
    assert file.path.read_bytes() == before


def test_other_questions_and_models_are_other_series(tmp_path):
    known = np.full((1, 1), 0.9)
    for night, (share, id_) in enumerate([(known, "a"), (known, "a"), (1 - known, "b"), (1 - known, "b")]):
        write_answers(tmp_path, when(night), share, name=f"{night}.tif", fingerprint=f"{night:064x}",
                      processing={MARK.id: id_})  # fmt: skip
    assert found(tmp_path) == []
