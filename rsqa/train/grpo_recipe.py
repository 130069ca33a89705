"""What one run of GRPO is told: the keys of `recipes/*/4_grpo.toml`."""

from __future__ import annotations

from dataclasses import dataclass

from rsqa.errors import RecipeError

TASKS = ("count", "box", "main", "more")
"""What procedural windows can be asked so that a reason decides it."""
CHOICES = {
    "stage": ("grpo",),
    "schedule": ("linear", "constant"),
    "reward": ("paper", "gated"),
    "normalise": ("grpo", "bnpo", "dr_grpo"),
}
"""Keys whose values are names."""


@dataclass(frozen=True, slots=True)
class GrpoRecipe:
    """One run of GRPO from the weights of `init`."""

    name: str
    init: str
    """Model to start from, which stays the reference: a name, a hub id or a folder with its card."""
    stage: str = "grpo"
    seed: int = 0

    # What is asked: records in the published format, or windows of procedural scenes.
    records: tuple[str, ...] = ()
    """Files below --data."""
    images: str = ""
    """Folder below --data from which records name their pictures; empty: --data itself."""
    held: tuple[str, ...] = ()
    """Files of records by which the run is evaluated."""
    skip_bad: bool = False
    """Leave records out that can't be used; false: do not start."""
    scene_windows: int = 0
    held_windows: int = 640
    tasks: tuple[str, ...] = ()
    """What windows are asked: of TASKS."""

    # What is sampled.
    prompts: int = 16
    """Prompts of a step, over all processes."""
    group: int = 4
    """Texts of a prompt."""
    temperature: float = 1.0
    max_new_tokens: int = 256
    rows: int = 256
    """Texts written at once on one device."""
    skip_limit: int = 0
    """How many times as many further prompts a step may draw for groups of equal rewards; 0: those groups stay."""

    # What it is worth.
    reward: str = "gated"
    """paper: accuracy + format; gated: nothing without the format; see `rsqa.train.rewards`."""
    judge: str = ""
    """`package.module:function` for open answers; empty: their records are left out."""
    shuffle_rewards: bool = False
    """Control experiment: the rewards of a step change places, so that nothing can be learned."""

    # The optimisation.
    steps: int = 0
    epochs: float = 0.0
    """In place of steps: so many prompts are drawn as there are records, times this."""
    micro: int = 4
    """Prompts, each with its group, of one forward pass."""
    updates: int = 1
    """Steps of the optimiser on the same texts."""
    lr: float = 1e-6
    schedule: str = "linear"
    """linear: to zero at the end."""
    weight_decay: float = 0.0
    max_norm: float = 1.0
    """Longer gradients are shortened to it."""
    beta: float = 0.001
    """Weight of the KL divergence from the reference; 0: no reference is held."""
    reference_sync: int = 0
    """The reference takes over the trained weights every so many steps; 0: never."""
    clip_low: float = 0.2
    """The ratio of the probabilities counts from 1 - clip_low …"""
    clip_high: float = 0.2
    """… to 1 + clip_high."""
    normalise: str = "grpo"
    """grpo: mean over the tokens of each text, then over texts; bnpo: over all tokens; dr_grpo: by max_new_tokens."""
    lora_rank: int = 0
    """0: all weights are trained; above: an adapter of that rank in the language part, scaled by 2."""
    bf16: bool = True
    """Texts are written, and read again, in bfloat16; the trained weights stay float32."""
    recompute: bool = False
    """Compute layers again in the backward pass in place of holding them."""

    # The watching.
    eval_every: int = 50
    save_every: int = 50

    def __post_init__(self) -> None:
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                raise RecipeError(f"{key} is {getattr(self, key)!r}; choose one of {', '.join(allowed)}")
        for key in ("prompts", "max_new_tokens", "rows", "micro", "updates", "eval_every", "save_every"):
            if getattr(self, key) < 1:
                raise RecipeError(f"{key} is {getattr(self, key)}; it must be at least 1")
        for key in ("temperature", "lr", "max_norm"):
            if not getattr(self, key) > 0:
                raise RecipeError(f"{key} is {getattr(self, key)}; it must be above 0")
        for key in ("skip_limit", "weight_decay", "beta", "reference_sync", "clip_low", "clip_high", "lora_rank"):
            if not getattr(self, key) >= 0:
                raise RecipeError(f"{key} is {getattr(self, key)}; it must not be below 0")
        if bool(self.records) == bool(self.tasks):
            raise RecipeError("give either records or tasks: one of them says what is asked")
        if unknown := sorted(set(self.tasks) - set(TASKS)):
            raise RecipeError(f"task {unknown[0]!r} is none of {', '.join(TASKS)}")
        if self.tasks and not self.scene_windows:
            raise RecipeError("tasks are asked of procedural windows; set scene_windows")
        if self.group < 2:
            raise RecipeError(f"group is {self.group}; a text is measured against others of its group: at least 2")
        if (self.steps > 0) == (self.epochs > 0):
            raise RecipeError(f"steps is {self.steps} and epochs {self.epochs}; set one of them above 0")
        if self.reference_sync and (self.lora_rank or not self.beta):
            raise RecipeError("reference_sync needs a reference of its own: beta above 0 and lora_rank = 0")
