"""What is to be done: which acquisitions are there, and which of them were not asked everything yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rsqa.errors import InputError, UsageError
from rsqa.monitor.dataset import Observation, Stored
from rsqa.monitor.scenes import Acquisition, Found, Scene, gathered, open_scene, settled
from rsqa.monitor.state import State
from rsqa.monitor.tell import Event
from rsqa.monitor.watch import Watch
from rsqa.tasks.question import Question


@dataclass(frozen=True, slots=True)
class Todo:
    """An acquisition and what is to be asked of it."""

    acquisition: Acquisition
    questions: tuple[Question, ...]
    replaces: tuple[str, ...] = ()
    """Observations of it with older files."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """The scenes that can be looked at."""

    acquisitions: list[Acquisition]
    """Oldest first."""
    n_unsettled: int
    """Files that may still be written."""
    n_refused: int
    """Files that failed to open in this pass."""


def arrived(watch: Watch, found: Sequence[Found], state: State, now: float, say: Callable[[Event], None]) -> Arrived:
    """Open the headers of files that are new, and gather them. What can't be opened is noted in `state`."""
    scenes: list[Scene] = []
    n_unsettled = n_refused = 0
    for file in found:
        scene = state.scene(file)
        about = f"{file.size}:{file.mtime_ns}"
        if scene is None:
            before = state.failure(file.name, about)
            if not settled(file, watch.scenes.settle_s, now):
                n_unsettled += 1
                continue
            if before and (before.given_up(watch.limits.tries) or not before.due(now)):
                continue
            try:
                scene = open_scene(file, watch.scenes)
            except (InputError, UsageError) as error:
                n_refused += 1
                failure = state.fail(file.name, about, before, str(error), now, refused=True)
                say(refusal(file.name, str(error), given_up=failure.given_up(watch.limits.tries)))
                continue
            state.remember(scene)
        scenes.append(scene)
    return Arrived(gathered(scenes), n_unsettled, n_refused)


def refusal(what: str, reason: str, *, given_up: bool) -> Event:
    """What to say of a scene that failed."""
    then = "given up until it changes (rsqa monitor run --retry tries again)" if given_up else "to be tried again"
    return Event("warning", "scene_failed", f"{what}: {reason}; {then}", {"scene": what, "given_up": given_up})


def todos(
    watch: Watch, acquisitions: Sequence[Acquisition], stored: Sequence[Stored], questions: tuple[Question, ...],
    processing: Mapping[str, str],
) -> list[Todo]:  # fmt: skip
    """What the dataset does not hold yet, oldest first. `processing`: looked at only where old scenes are asked too."""
    known: dict[str, list[Observation]] = {}
    for file in stored:
        for observation in file.observations:
            known.setdefault(observation.acquired.isoformat(), []).append(observation)
    found = []
    for acquisition in acquisitions:
        before = known.get(acquisition.acquired.isoformat(), [])
        held = [observation for observation in before if acquisition.content <= observation.content]
        if not held:
            replaced = tuple(observation.id for observation in before if _covered(observation, acquisition))
            found.append(Todo(acquisition, questions, replaced))
        elif watch.ask.back_fill:
            asked = {pair for observation in held for pair in observation.asked}
            missing = tuple(question for question in questions if (question.id, processing[question.id]) not in asked)
            if missing:
                found.append(Todo(acquisition, missing))
    return found


def _covered(observation: Observation, acquisition: Acquisition) -> bool:
    """Whether every file of the observation is there still, as it was or as a newer one."""
    names = {scene.found.name for scene in acquisition.scenes}
    return all(name in names or fingerprint in acquisition.content for name, fingerprint in observation.files)
