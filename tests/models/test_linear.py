import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsqa.models.linear import Int8, linear, scaled_linear


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 99), st.integers(1, 40), st.integers(2, 33), st.integers(1, 50))
def test_eight_bits_are_whole_numbers_times_their_steps(seed, rows, inputs, outputs):
    """Against the same arithmetic in float64: what is rounded is rounded to nearest, the product is exact.

    (With a single input the kernel of torch 2.13 is wrong; no layer has one.)
    """
    weight, x = drawn(seed, outputs, inputs), drawn(seed + 1, rows, inputs)
    held = Int8.of(weight, torch.float32)
    assert (held.values.float() * held.steps[:, None] - weight).abs().max() <= weight.abs().max() / 127 / 2 * 1.001
    steps = x.abs().amax(1, keepdim=True) / 127
    whole = (x / steps).round().double() @ held.values.double().T
    torch.testing.assert_close(
        linear(x, held), (whole * steps.double() * held.steps.double()).float(), rtol=1e-5, atol=1e-5
    )


def test_nothing_becomes_nothing():
    held = Int8.of(torch.zeros(3, 4), torch.float32)
    assert linear(torch.ones(2, 4), held).eq(0).all()
    assert linear(torch.zeros(2, 4), Int8.of(torch.ones(3, 4), torch.float32)).eq(0).all()


@pytest.mark.parametrize("hold", [lambda weight: weight, lambda weight: Int8.of(weight, torch.float32)])
def test_scale_and_bias(hold):
    x, weight, bias = drawn(0, 2, 5, 16), drawn(1, 8, 16), drawn(2, 8)
    plain = linear(x, hold(weight))
    assert plain.shape == (2, 5, 8)
    torch.testing.assert_close(linear(x, hold(weight), bias), plain + bias)
    torch.testing.assert_close(scaled_linear(x, hold(weight), bias, 0.3), 0.3 * plain + bias)
    assert (plain - x @ weight.T).norm() < 0.02 * plain.norm()
