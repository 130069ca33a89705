"""What one run of GRASP or of a rival is told: the keys of `recipes/grasp/*.toml`."""

from __future__ import annotations

from dataclasses import dataclass

from rsqa.errors import RecipeError
from rsqa.models.prompt_adapter import PromptShape

PROMPTS = ("grasp", "static", "cocoop")
"""Methods that put vectors before the questions: see `rsqa.models.prompt_adapter.PromptShape`."""
METHODS = (*PROMPTS, "probe", "vpt", "lora", "dora", "full")
SETS = ("rsivqa", "labels", "scenes")


@dataclass(frozen=True, slots=True)
class GraspRecipe:
    """One run: what is trained around the frozen model `init`, on questions about whole pictures."""

    name: str
    init: str
    """The base: a name, a hub id or a folder with its card."""
    stage: str = "grasp"
    seed: int = 0
    method: str = "grasp"
    """grasp, static, cocoop; probe: a linear layer from the hidden state that the base would answer from to the answers
    that were learned from; vpt: vectors before the patches of the vision tower (arXiv 2203.12119); lora, dora: of the
    language part; full: all weights."""

    # The shape of a prompt; see PromptShape.
    mode: str = "robust"
    tokens: int = 6
    """Also how many vectors vpt has."""
    blocks: int = 4
    inner: int = 64
    context: int = 32
    fusion: str = "entmax15"
    positions: bool = True
    placement: str = "after_image"
    question: str = "last"

    rank: int = 8
    """Of lora and dora."""

    # What is asked.
    questions: tuple[str, ...] = ("rsivqa", "labels")
    """rsivqa: what people asked about UC Merced; labels: whether each of its 17 labels is there; scenes: whether a
    thing is there, of procedural windows."""
    side_px: int = 0
    """What the model sees of a picture; 0: the side of the card."""
    guide: float = 0.0
    """Weight of a second loss: that blocks weigh as much as they hold of what is asked, where that is known."""
    scene_windows: int = 0
    held_windows: int = 640

    # The optimisation.
    batch: int = 64
    """Pictures a step."""
    steps: int = 0
    """0: as many as `epochs` take."""
    epochs: int = 20
    lr: float = 1e-4
    """Of all that is trained but the prompts."""
    lr_prompts: float = 2e-2
    warmup_ratio: float = 0.1
    """Share of the steps in which the rates rise; then half a cosine to zero."""
    weight_decay: float = 0.01
    """Of matrices; prompts have none."""
    clip: float = 1.0
    bf16: bool = False
    """Hold the frozen base in bfloat16; adapters are float32."""

    # The watching.
    log_every: int = 20
    eval_every: int = 200
    save_every: int = 200

    def __post_init__(self) -> None:
        if self.stage != "grasp":
            raise RecipeError(f"stage {self.stage!r} of a recipe of adapters; it is 'grasp'")
        if self.method not in METHODS:
            raise RecipeError(f"method {self.method!r} is none of {', '.join(METHODS)}")
        if unknown := sorted(set(self.questions) - set(SETS)) or not self.questions:
            raise RecipeError(f"questions are {unknown or 'none'}; choose from {', '.join(SETS)}")
        if "scenes" in self.questions and self.scene_windows <= 0:
            raise RecipeError("scenes are asked about but scene_windows is 0; set scene_windows")
        if self.batch < 1 or (self.steps or self.epochs) < 1:
            raise RecipeError(f"batch {self.batch}, steps {self.steps} and epochs {self.epochs} give nothing to do")
        if self.guide < 0 or (self.guide and (self.method != "grasp" or self.fusion == "mean")):
            raise RecipeError(f"guide is {self.guide}; it is 0 or more, and 0 where the question chooses no blocks")
        if self.bf16 and self.method == "full":
            raise RecipeError("steps of whole weights are lost in bfloat16; set bf16 = false")

    def shape(self, width: int) -> PromptShape:
        """The prompt on a base of `width`."""
        return PromptShape(
            width, self.method, self.tokens, self.blocks, self.inner, self.context, self.mode, self.fusion,
            self.positions, self.placement, self.question,
        )  # fmt: skip

    @property
    def before_image(self) -> bool:
        """Whether each question has a prefix of its own."""
        return self.method in PROMPTS and self.placement == "before_image"
