from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsqa.errors import ModelError
from rsqa.models.grasp import Grasp, block_means, block_of, block_positions, spread, standardised
from rsqa.models.prompt_adapter import PromptShape
from rsqa.models.rivals import prompter_of

D = 16
ROBUST = PromptShape(D, tokens=3, blocks=4, inner=8, context=5)
PAPER = replace(PromptShape.paper(D), inner=8)
SHAPES = [
    ROBUST, PAPER, replace(ROBUST, blocks=9, fusion="sparsemax"), replace(ROBUST, positions=False, fusion="softmax"),
    replace(ROBUST, fusion="top2", context=0), replace(ROBUST, fusion="mean"), replace(ROBUST, blocks=1),
    replace(ROBUST, method="static"), replace(ROBUST, method="cocoop"),
]  # fmt: skip
CHOOSING = [shape for shape in SHAPES if shape.method == "grasp"]


def made(shape, seed=0):
    """Weights that make scores differ: those of a start hardly do."""
    torch.manual_seed(seed)
    prompter = prompter_of(shape)
    with torch.no_grad():
        for weight in prompter.parameters():
            weight.normal_(0, 0.7) if weight.ndim else weight.fill_(1.3)
    return prompter


def sights(b, grid, seed=0):
    return torch.randn(b, grid[0] * grid[1], D, generator=torch.Generator().manual_seed(seed))


def asked(n, seed=5):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def n_parameters(prompter):
    return sum(weight.numel() for weight in prompter.parameters())


@pytest.mark.parametrize(
    ("d", "blocks", "tokens", "expected"),
    [(1536, 4, 1, 1_580_032), (1536, 16, 1, 1_598_464), (1536, 4, 16, 1_672_192), (3584, 4, 1, 3_685_376)],
)
def test_parameters_of_the_paper(d, blocks, tokens, expected):
    shape = replace(PromptShape.paper(d), blocks=blocks, tokens=tokens)
    with torch.device("meta"):
        assert n_parameters(Grasp(shape)) == expected == blocks * tokens * d + 2 * (d * 512 + 512)


def test_parameters_of_ours_and_of_its_rivals():
    nano = PromptShape(192, tokens=8, blocks=4, inner=64, context=0)
    assert n_parameters(prompter_of(nano)) == 30_848 + 3  # temperature, weight of the positions, least spread
    assert n_parameters(prompter_of(replace(nano, context=32))) == 30_851 + 2 * (192 * 32 + 32) + 32 * 8 * 192
    assert n_parameters(prompter_of(replace(nano, fusion="mean"))) == 4 * 8 * 192
    assert n_parameters(prompter_of(replace(nano, method="static"))) == 8 * 192
    assert n_parameters(prompter_of(replace(nano, method="cocoop"))) == 8 * 192 + 2 * 192 * 12 + 192 + 12


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 5))
def test_every_token_has_one_block_and_blocks_are_even(rows, cols, side):
    block = block_of((rows, cols), side).reshape(rows, cols).numpy()
    assert block.min() >= 0
    assert block.max() < side**2
    for along in (block[:, 0] // side, block[0] % side):
        counts = np.bincount(along, minlength=side)
        assert (np.diff(along) >= 0).all()
        assert counts.max() - counts.min() <= 1
    assert (block == block[:, :1] + block[:1] - block[0, 0]).all()  # the block of a row and a column


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_means_equal_those_of_brute_force(rows, cols, side, seed):
    rng = np.random.default_rng(seed)
    visual, valid = rng.normal(size=(2, rows * cols, 4)), rng.random((2, rows * cols)) < 0.6
    means, there = block_means(torch.from_numpy(visual), (rows, cols), side, torch.from_numpy(valid))
    block = block_of((rows, cols), side).numpy()
    for b in range(2):
        for n in range(side**2):
            mine = visual[b, (block == n) & valid[b]]
            assert bool(there[b, n]) == bool(len(mine))
            np.testing.assert_allclose(means[b, n], mine.mean(axis=0) if len(mine) else 0, atol=1e-12)


def test_positions_have_the_length_that_is_known_and_tell_blocks_apart():
    places = block_positions(3, 64)
    torch.testing.assert_close(places.norm(dim=1), torch.full((9,), 32**0.5))
    assert torch.pdist(places).min() > 0.5
    rows, cols = places.reshape(3, 3, 64)[..., :32], places.reshape(3, 3, 64)[..., 32:]
    assert (rows == rows[:, :1]).all()
    assert (cols == cols[:1]).all()


@torch.no_grad()
def mixture(prompter, visual, grid, questions, weights):
    """The slots of (B, Q, N) weights, one picture, question and vector after the other."""
    shape, unit = prompter.shape, lambda x: torch.nn.functional.layer_norm(x, x.shape)
    slots = torch.zeros(*weights.shape[:2], shape.tokens, D)
    for b, q, k in np.ndindex(slots.shape[:3]):
        slots[b, q, k] = sum(w * prompts[k] for w, prompts in zip(weights[b, q], prompter.prompts, strict=True))
        if shape.tells:
            means = block_means(visual[b : b + 1], grid, shape.side)[0][0]
            seen = unit(sum(w * mean for w, mean in zip(weights[b, q], means, strict=True)))
            met = torch.nn.functional.gelu(prompter.shown(seen)) * prompter.wanted(unit(questions[q]))
            slots[b, q, k] += prompter.told.weight[k * D : (k + 1) * D] @ met
    return slots


@pytest.mark.parametrize("grid", [(9, 9), (4, 4), (3, 5), (1, 7), (1, 1), (9, 18)])
@pytest.mark.parametrize("shape", CHOOSING, ids=str)
def test_weights_are_shares_and_slots_their_mixture(shape, grid):
    prompter = made(shape)
    slots, weights, _ = prompter(sights(3, grid), grid, asked(5))
    assert slots.shape == (3, 5, shape.tokens, D)
    assert weights.shape == (3, 5, shape.blocks)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 5))
    torch.testing.assert_close(slots, mixture(prompter, sights(3, grid), grid, asked(5), weights))
    empty = torch.tensor([n not in block_of(grid, shape.side) for n in range(shape.blocks)])
    assert (weights[..., empty] == 0).all()


def test_scores_of_the_paper_written_out():
    prompter, grid = made(PAPER).requires_grad_(False), (4, 6)
    visual, questions = sights(2, grid), asked(3)
    weights = prompter(visual, grid, questions).weights
    entmax15 = pytest.importorskip("entmax").entmax15
    for b in range(2):
        cells = visual[b].reshape(4, 6, D)
        blocks = [cells[r : r + 2, c : c + 3].reshape(-1, D).mean(dim=0) for r in (0, 2) for c in (0, 3)]
        for q in range(3):
            key = prompter.question.weight @ questions[q] + prompter.question.bias
            scores = [
                float((prompter.blocks.weight @ (block + place) + prompter.blocks.bias) @ key) / 8**0.5
                for block, place in zip(blocks, block_positions(2, D), strict=True)
            ]
            torch.testing.assert_close(weights[b, q], entmax15(torch.tensor(scores), dim=0), rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", CHOOSING, ids=str)
def test_a_masked_block_weighs_nothing_and_moves_no_other(shape):
    prompter, grid = made(shape), (4, 4)
    if shape.blocks == 1:
        return
    visual, valid = sights(2, grid), torch.ones(2, 16, dtype=torch.bool)
    hidden = block_of(grid, shape.side) == shape.blocks - 1
    valid[0, hidden] = False
    changed = visual.clone()
    changed[0, hidden] = torch.nan_to_num(1e3 * changed[0, hidden])
    weights, other = (prompter(v, grid, asked(4), valid).weights for v in (visual, changed))
    assert (weights[0, :, -1] == 0).all()
    torch.testing.assert_close(weights, other, rtol=0, atol=1e-6)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4))
    torch.testing.assert_close(weights[1], prompter(visual, grid, asked(4)).weights[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nothing_valid_is_no_nan(shape):
    prompter = made(shape)
    visual = sights(2, (4, 4)).requires_grad_()
    valid = torch.tensor([[False], [True]]).expand(-1, 16)
    slots, weights, _ = prompter(visual, (4, 4), asked(2), valid)
    assert torch.isfinite(slots).all()
    assert (weights[0] == 0).all()
    slots.square().sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (visual, *prompter.parameters()) if t.grad is not None)


def test_equal_blocks_give_finite_gradients():
    prompter = made(replace(ROBUST, positions=False))
    slots, weights, _ = prompter(torch.ones(1, 16, D), (4, 4), asked(2))
    torch.testing.assert_close(weights, torch.full((1, 2, 4), 0.25))
    slots.sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in prompter.parameters() if weight.grad is not None)


def test_scores_that_hardly_differ_leave_all_blocks_alone():
    """Where they differ much it does not matter how much."""
    scores, there, least = asked(2)[None], torch.ones(1, 2, D, dtype=torch.bool), torch.tensor(0.1)
    large, larger, small = (standardised(scores * scale, there, least) for scale in (1e3, 1e4, 1e-3))
    torch.testing.assert_close(large, larger)
    torch.testing.assert_close(large.std(dim=-1, correction=0), torch.ones(1, 2))
    assert small.abs().max() < 0.05
    torch.testing.assert_close(small / small.std(dim=-1, keepdim=True), large / large.std(dim=-1, keepdim=True))


def test_robust_mode_is_sparse_where_the_paper_is_not():
    """With the first weights: all scores of the paper are alike."""
    found = {}
    for shape in (PromptShape(192, inner=64), PromptShape.paper(192)):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1)
        common = 3 * torch.randn(1, 1, 192, generator=generator)
        visual = common + torch.randn(64, 16, 192, generator=generator)
        questions = torch.randn(8, 192, generator=generator)
        found[shape.mode] = prompter_of(shape).requires_grad_(False)(visual, (4, 4), questions).weights
    assert float(spread(found["robust"]).mean()) < 0.8
    assert (found["robust"] == 0).any(dim=-1).float().mean() > 0.4
    assert (found["robust"] == 0).sum() > 10 * (found["paper"] == 0).sum()


def test_the_arithmetic_is_float32():
    prompter = made(ROBUST)
    visual, questions = sights(2, (4, 4)).bfloat16(), asked(2).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = prompter(visual, (4, 4), questions)
    for a, b in zip(found, prompter(visual.float(), (4, 4), questions.float()), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pictures_and_questions_in_any_company(shape):
    prompter = made(shape)
    visual, questions = sights(4, (3, 4)), asked(3)
    slots = prompter(visual, (3, 4), questions).slots
    for b in range(4):
        for q in range(3):
            alone = prompter(visual[b : b + 1], (3, 4), questions[q : q + 1]).slots[0, 0]
            torch.testing.assert_close(alone, slots[b, q], rtol=2e-5, atol=1e-5)
    own = torch.stack([questions.roll(b, 0) for b in range(4)])  # each picture its own questions
    torch.testing.assert_close(prompter(visual, (3, 4), own).slots[1, 1], slots[1, 0], rtol=0, atol=1e-5)


def test_what_each_rival_looks_at():
    visual, questions = sights(2, (4, 4)), asked(2)
    looks = {
        name: prompter_of(shape)(visual, (4, 4), questions).slots
        for name, shape in (("static", SHAPES[-2]), ("cocoop", SHAPES[-1]), ("mean", SHAPES[5]), ("grasp", ROBUST))
    }
    by_picture = {name: not torch.equal(slots[0], slots[1]) for name, slots in looks.items()}
    by_question = {name: not torch.equal(slots[:, 0], slots[:, 1]) for name, slots in looks.items()}
    assert by_picture == {"static": False, "cocoop": True, "mean": False, "grasp": True}
    assert by_question == {"static": False, "cocoop": False, "mean": False, "grasp": True}


def test_learns_where_to_look():
    """A mark lies in one block; the question names the mark, the answer is the block."""
    generator = torch.Generator().manual_seed(3)
    marks = 4 * torch.randn(3, D, generator=generator)

    def draw(n):
        where, what = (torch.randint(0, high, (n,), generator=generator) for high in (4, 3))
        visual = torch.randn(n, 16, D, generator=generator)
        for number in range(3):  # every mark lies somewhere, the named one where the answer is
            place = torch.where(what == number, where, torch.randint(0, 4, (n,), generator=generator))
            visual[block_of((4, 4), 2)[None] == place[:, None]] += marks[number] / 2
        return visual, marks[what][:, None], where

    torch.manual_seed(0)
    prompter = prompter_of(replace(ROBUST, inner=16, fusion="entmax15"))
    optimizer = torch.optim.Adam(prompter.parameters(), 1e-2)
    for _ in range(120):
        visual, questions, where = draw(64)
        weights = prompter(visual, (4, 4), questions).weights[:, 0]
        loss = ((weights - torch.nn.functional.one_hot(where, 4)) ** 2).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    visual, questions, where = draw(400)
    weights = prompter(visual, (4, 4), questions).weights[:, 0]
    assert weights.gather(1, where[:, None]).mean() > 0.6
    shuffled = prompter(visual, (4, 4), questions.roll(1, 0)).weights[:, 0]
    assert shuffled.gather(1, where[:, None]).mean() < 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [({"blocks": 5}, "choose a square"), ({"fusion": "max"}, "'max'; choose from"), ({"tokens": -1}, "sizes"),
     ({"width": 18}, "sizes"), ({"context": -1}, "sizes"), ({"mode": "best"}, "robust, paper")],
)  # fmt: skip
def test_nonsense_can_not_be_made(change, said):
    with pytest.raises(ModelError, match=said):
        replace(ROBUST, **change)
