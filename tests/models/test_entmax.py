"""Exactness: the package entmax, brute force over supports, and finite differences are the oracles."""

import pytest
import torch
from torch.autograd import gradcheck

from rsqa.models.entmax import entmax15, softmax, sparsemax, top2

FUSIONS = [entmax15, sparsemax, softmax, top2]


def scores(rows, n, spread=1.5, dtype=torch.float64):
    return spread * torch.randn(rows, n, generator=torch.Generator().manual_seed(n), dtype=dtype)


@pytest.mark.parametrize("n", [1, 2, 4, 16, 97])
@pytest.mark.parametrize(("ours", "name"), [(entmax15, "entmax15"), (sparsemax, "sparsemax")])
def test_equals_the_package(ours, name, n):
    theirs = getattr(pytest.importorskip("entmax"), name)
    for spread in (0.0, 0.01, 1.0, 30.0):
        x = scores(50, n, spread).requires_grad_()
        found, expected = ours(x), theirs(x, dim=-1)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        pull = scores(50, n).flip(0)
        pairs = (torch.autograd.grad((p * pull).sum(), x)[0] for p in (found, expected))
        torch.testing.assert_close(*pairs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_equal_finite_differences(fusion):
    assert gradcheck(fusion, (scores(6, 5).requires_grad_(),))


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    """Brute force over all supports: the nearest among their projections that have no negative weight."""
    for x in scores(20, 4):
        candidates = []
        for support in range(1, 16):
            chosen = torch.tensor([bool(support >> i & 1) for i in range(4)])
            p = torch.where(chosen, x - (x[chosen].sum() - 1) / chosen.sum(), 0)
            if (p >= 0).all():
                candidates.append(p)
        nearest = min(candidates, key=lambda p: float(((p - x) ** 2).sum()))
        torch.testing.assert_close(sparsemax(x), nearest, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_may_not_be_chosen_gets_nothing_and_changes_nothing(fusion):
    x = scores(30, 6)
    barred = torch.cat([x[:, :3], torch.full((30, 2), -torch.inf, dtype=x.dtype), x[:, 3:]], dim=1).requires_grad_()
    p = fusion(barred)
    assert (p[:, 3:5] == 0).all()
    torch.testing.assert_close(p[:, [0, 1, 2, 5, 6, 7]], fusion(x), rtol=0, atol=1e-15)
    (p * torch.randn_like(p)).sum().backward()
    assert torch.isfinite(barred.grad).all()
    assert (barred.grad[:, 3:5] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_half_precision_is_widened(fusion, dtype):
    x = scores(10, 8, 3.0).to(dtype).requires_grad_()
    p = fusion(x)
    assert p.dtype == torch.float32
    torch.testing.assert_close(p, fusion(x.detach().float()), rtol=0, atol=0)
    p[:, 0].sum().backward()
    assert x.grad.dtype == dtype


@pytest.mark.parametrize(
    ("n", "spread", "entropy", "zeros"), [(4, 0.1, 0.989, 0.0), (4, 1.0, 0.52, 0.97), (16, 1.0, 0.43, 9.8)]
)
def test_the_spread_of_the_scores_decides_how_sparse_it_is(n, spread, entropy, zeros):
    """Figures measured before this code was written."""
    p = entmax15(scores(20_000, n, spread))
    found = torch.special.entr(p).sum(dim=1).mean() / torch.log(torch.tensor(float(n)))
    assert float(found) == pytest.approx(entropy, abs=0.02)
    assert float((p == 0).sum(dim=1).double().mean()) == pytest.approx(zeros, abs=0.1)
