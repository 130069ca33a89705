"""From published sets to conversations or GRPO records, in one folder that is there whole or not at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO, get_args

from rsqa.engines.cards import CARDS
from rsqa.errors import InputError, OutputError, SourceMissing, UsageError
from rsqa.sinks.whole import write_whole_folder
from rsqa.tasks.question_words import infer
from rsqa.train import labelled_sets
from rsqa.train.labelled_sets import Found, Held, Item, Kind, PictureFolder
from rsqa.train.parts import Part, part_of
from rsqa.train.set_files import LeftOut
from rsqa.train.tally import Tally

Format = Literal["rsvqa", "rsivqa", "folders", "boxes", "parquet"]
KINDS: Mapping[Format, tuple[Kind, ...]] = {
    "rsvqa": ("vqa",),
    "rsivqa": ("vqa",),
    "folders": ("classes",),
    "boxes": ("boxes",),
    "parquet": ("vqa", "captions", "classes", "boxes"),
}
"""What each format can hold."""
ASK_CAPTION = "Describe this image."
_STYLE = CARDS["tinyrs"].prompt


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of a set."""

    file: Path
    images: Path
    """Folder in which the paths of the records begin."""
    n_records: int
    n_pictures: int
    kinds: Mapping[str, int]
    """Records of each kind."""
    left_out: Tally


def convert(
    form: Format,
    source: Path,
    out: Path,
    images: Path | None = None,
    part: Part | None = None,
    kinds: Sequence[Kind] = (),
    grpo: bool = False,
) -> Converted:
    """Write `out/conversations.json` (or `out/grpo.jsonl`) and `out/report.json`; of Parquet also `out/images/`.

    `images`: folder of the pictures, by default the source's own; `part`: only these pictures; `kinds`: only these.
    Raises UsageError, InputError when nothing is left, OutputError when `out` is there already.
    """
    _check_request(form, source, out, images, kinds)
    folder = out / "images" if form == "parquet" else images or (source if source.is_dir() else source.parent)
    done: list[Converted] = []

    def write(temporary: Path) -> None:
        found = _read(form, source, folder, kinds)
        records = temporary / ("grpo.jsonl" if grpo else "conversations.json")
        with records.open("w", encoding="utf-8") as file:
            counts, n_pictures, left_out = _write_records(file, found, part, grpo, temporary / "images")
        done.append(Converted(out / records.name, folder, sum(counts.values()), n_pictures, counts, left_out))
        if not done[0].n_records:
            reasons = "; ".join(f"{n:,} {why}" for why, n in left_out.counts.items()) or "it is empty"
            raise InputError(f"nothing of {source.name} can be converted: {reasons}")
        report = _report(form, source, part, done[0])
        (temporary / "report.json").write_text(report, encoding="utf-8")

    write_whole_folder(out, write)
    return done[0]


def _check_request(form: Format, source: Path, out: Path, images: Path | None, kinds: Sequence[Kind]) -> None:
    if form not in KINDS:
        raise UsageError(f"unknown format {form!r}; choose one of {', '.join(get_args(Format))}")
    if wrong := [kind for kind in kinds if kind not in KINDS[form]]:
        raise UsageError(f"{form} holds no {wrong[0]!r}; it has {', '.join(KINDS[form])}")
    if form == "parquet" and images is not None:
        raise UsageError("a Parquet file holds its pictures; leave --images away")
    if not source.exists():
        raise SourceMissing(f"no file or folder {source.name}; name the set to convert")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out.name} is there already; name a new folder")


def _read(form: Format, source: Path, folder: Path, kinds: Sequence[Kind]) -> Iterator[Found]:
    readers = {
        "rsvqa": labelled_sets.rsvqa,
        "rsivqa": labelled_sets.rsivqa,
        "folders": labelled_sets.folders,
        "boxes": labelled_sets.boxes,
    }
    try:
        if form == "parquet":
            yield from labelled_sets.parquet(source, kinds)
        else:
            yield from readers[form](source, PictureFolder(folder))
    except OSError as error:
        raise InputError(f"can't read {source.name}: {error.strerror or error}; check its permissions") from error


def _write_records(
    file: TextIO, found: Iterator[Found], part: Part | None, grpo: bool, images: Path
) -> tuple[Counter[str], int, Tally]:
    """-> records of each kind, number of pictures, what was left out. Pictures that the set holds go to `images`."""
    counts: Counter[str] = Counter()
    left_out, pictures = Tally(), set()
    held: Held | None = None
    for one in found:
        if isinstance(one, Held):
            held = one
        elif part is not None and one.id and part_of(one.id) != part:
            left_out.add("other part", one.id)
        elif isinstance(one, LeftOut):
            left_out.add(one.why, one.what)
        elif grpo and one.kind == "captions":
            left_out.add("caption: no one right answer", one.id)
        else:
            line = json.dumps(gold(one) if grpo else conversation(one), ensure_ascii=False)
            file.write(f"{line}\n" if grpo else f",\n{line}" if counts else f"[\n{line}")
            counts[one.kind] += 1
            if held is not None and one.image not in pictures:
                images.mkdir(exist_ok=True)
                (images / held.image).write_bytes(held.content)
            pictures.add(one.image)
    file.write("" if grpo else "\n]\n")
    return counts, len(pictures), left_out


def asked(item: Item) -> str:
    """The user's words with the tag that TinyRS knows (arXiv 2505.12099, its published evaluation code)."""
    if item.kind == "captions":
        return ASK_CAPTION
    if item.kind == "classes":
        return f"{_STYLE.labels_tag}{item.question}"
    if item.kind == "boxes":
        return f"{_STYLE.boxes_tag}{item.question}{_STYLE.tail}"
    tag = _STYLE.count_tag if infer(item.question)[0] == "count" else _STYLE.closed_tag
    return f"{tag}{item.question}{_STYLE.tail}"


def conversation(item: Item) -> dict[str, object]:
    """A record of the published training format."""
    turns = [{"from": "human", "value": f"<image>\n{asked(item)}"}, {"from": "gpt", "value": item.answer}]
    return {"id": item.id, "image": item.image, "conversations": turns}


def gold(item: Item) -> dict[str, object]:
    """A GRPO record: answer type 2 is a box, 1 a word that is compared."""
    answer_type = "2" if item.kind == "boxes" else "1"
    return {"image": item.image, "question": asked(item), "answer_type": answer_type, "answer": item.answer}


def _report(form: Format, source: Path, part: Part | None, done: Converted) -> str:
    told = {
        "format": form,
        "source": source.name,
        "part": part or "all",
        "records": done.n_records,
        "pictures": done.n_pictures,
        "kinds": dict(done.kinds),
        "left_out": done.left_out.report(),
    }
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"
