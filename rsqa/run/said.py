"""What a model said of the tiles of a part: from replies to answers, and from boxes in chips to pixels of the source.

N tiles, B boxes of one tile.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from rsqa.engines.base import Replies
from rsqa.raster.read import shown
from rsqa.run.plan import Plan, PlannedSource
from rsqa.tasks.boxes import SaidBoxes, pixel_corners
from rsqa.tasks.detect import located
from rsqa.tasks.labels import mean_logprob
from rsqa.tasks.parse import Answers, answers
from rsqa.tasks.question import Question
from rsqa.tasks.task import Classify, Detect


def read_replies(plan: Plan, replies: list[Replies]) -> list[Answers]:
    """Replies to what was asked -> answers to what the rows are about; none where no tile was asked."""
    if not replies:
        return []
    match plan.task:
        case Classify() if len(replies) > len(plan.row_questions):
            logprobs = [reply.option_logprob for reply in replies if reply.option_logprob is not None]
            return [_answers(plan, plan.row_questions[0], Replies(mean_logprob(logprobs)))]
        case Detect():
            said = [_answers(plan, *pair) for pair in zip(plan.questions, replies, strict=True)]
            wheres, card = plan.row_questions, plan.model.card
            return [
                located(where, there, words, card.box_format, card.boxes)
                for where, there, words in zip(wheres, said[::2], said[1::2], strict=True)
            ]
        case _:
            said = [_answers(plan, *pair) for pair in zip(plan.row_questions, replies, strict=True)]
    if not plan.evidence:
        return said
    return [replace(answered, evidence=reply.evidence) for answered, reply in zip(said, replies, strict=True)]


def _answers(plan: Plan, question: Question, reply: Replies) -> Answers:
    card = plan.model.card
    return answers(
        question,
        reply,
        mass_floor=card.mass_floor,
        temperature=card.temperatures.get(question.kind, 1.0),
        reasoning=card.prompt.reasoning,
    )


def source_corners(
    planned: PlannedSource, tiles: NDArray[np.int64], said: NDArray[np.object_]
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """(N, 2) tile row and column, (N,) of SaidBoxes -> (N,) of (B, 4, 2) in pixels of the source, (N,) malformed."""
    grid, source = planned.level_grid, planned.source
    corners = np.empty(len(said), object)
    corners[:] = [
        pixel_corners(boxes, shown(source, grid, grid.tile(row, col)), (source.height, source.width))
        for boxes, (row, col) in zip(said, tiles.tolist(), strict=True)
    ]
    every: list[SaidBoxes] = said.tolist()
    return corners, np.array([boxes.malformed for boxes in every], np.int64)
