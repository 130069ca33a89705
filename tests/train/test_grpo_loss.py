import json

import pytest
import torch
from pin_trl import CASES, GROUP, LONGEST, PINS, tensors, trl_advantages, trl_loss

from rsqa.train.grpo_loss import Clip, Judged, group_advantage, grpo_loss, has_signal, k3, outside, parts, token_weights

PINNED = json.loads(PINS.read_text(encoding="utf-8"))


def ours(case, micro=2 * GROUP):
    """-> loss and gradient, `micro` texts at a time."""
    told = CASES[case]
    logprob, old, reference, mask, _ = tensors(case)
    logprob.requires_grad_(True)
    advantage = torch.tensor(PINNED["advantages"], dtype=torch.float64).flatten()
    n_parts = parts(mask, told["loss_type"])
    total = 0.0
    for first in range(0, 2 * GROUP, micro):
        some = slice(first, first + micro)
        weight = token_weights(mask[some], told["loss_type"], LONGEST) / n_parts
        judged = Judged(advantage[some], weight, old[some], reference[some] if told["beta"] else None)
        loss = grpo_loss(logprob[some], judged, Clip(told["low"], told["high"]), told["beta"])
        loss.backward()
        total += loss.item()
    return total, logprob.grad


@pytest.mark.parametrize("micro", [8, 4, 1])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_those_of_trl(case, micro):
    loss, gradient = ours(case, micro)
    assert loss == pytest.approx(PINNED["cases"][case]["loss"], rel=1e-12, abs=1e-12)
    expected = torch.tensor(PINNED["cases"][case]["gradient"], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
    assert gradient.abs().sum() > 0.01


@pytest.mark.parametrize("case", CASES)
def test_the_pins_are_what_trl_says_today(case):
    pytest.importorskip("trl")
    loss, gradient = trl_loss(case)
    pinned = PINNED["cases"][case]
    assert loss == pytest.approx(pinned["loss"], rel=1e-12)
    torch.testing.assert_close(gradient, torch.tensor(pinned["gradient"], dtype=torch.float64), rtol=1e-12, atol=1e-14)


def test_the_cases_reach_both_sides_of_the_clip_range():
    for case, told in CASES.items():
        logprob, old, reference, mask, rewards = tensors(case)
        judged = Judged(group_advantage(rewards).flatten(), mask, old, reference)
        far = outside(logprob, judged, Clip(told["low"], told["high"])) & mask.bool()
        assert 0 < far.sum() < mask.sum(), case


def test_advantages_equal_those_of_trl():
    """TRL counts the rewards of a group in float32."""
    expected = torch.tensor(PINNED["advantages"], dtype=torch.float64)
    torch.testing.assert_close(group_advantage(tensors("paper")[4]), expected, rtol=1e-6, atol=0)


def test_advantages_with_missing_rewards_equal_those_of_trl():
    pytest.importorskip("trl")
    nan = torch.nan
    rewards = torch.tensor([[2.0, nan, 0.0, 1.0], [1.0, nan, nan, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(group_advantage(rewards), trl_advantages(rewards), rtol=1e-6, atol=0)


def test_a_group_without_its_missing_rewards():
    advantage = group_advantage(torch.tensor([[1.0, torch.nan, 0.0]]))[0]
    assert advantage[1] == 0
    torch.testing.assert_close(advantage[[0, 2]], group_advantage(torch.tensor([[1.0, 0.0]]))[0])


@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, torch.nan])
@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_equal_rewards_teach_nothing(reward, n):
    for dtype in (torch.float32, torch.float64):
        rewards = torch.full((2, n), reward, dtype=dtype)
        assert not has_signal(rewards).any()
        assert torch.equal(group_advantage(rewards), torch.zeros_like(rewards))


def test_one_known_reward_teaches_nothing():
    assert torch.equal(group_advantage(torch.tensor([[torch.nan, 1.0]])), torch.zeros(1, 2))


def test_gradient_equals_finite_differences():
    logprob, old, reference, mask, rewards = tensors("clip higher")
    judged = Judged(group_advantage(rewards).flatten(), token_weights(mask, "grpo", LONGEST), old, reference)
    torch.autograd.gradcheck(lambda x: grpo_loss(x, judged, Clip(0.2, 0.2), 0.04), logprob.requires_grad_(True))


def test_k3_estimates_the_divergence():
    """Its mean over the own distribution is the divergence from the reference, and it is never negative."""
    own, other = torch.tensor([0.5, 0.3, 0.2]).log(), torch.tensor([0.2, 0.2, 0.6]).log()
    estimate = k3(own, other)
    assert (estimate >= 0).all()
    torch.testing.assert_close((own.exp() * estimate).sum(), (own.exp() * (own - other)).sum())


def test_a_masked_text_is_none():
    mask = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert parts(mask, "grpo") == 1
    assert parts(mask, "bnpo") == 2
    assert torch.equal(token_weights(mask, "grpo", 5), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]))
