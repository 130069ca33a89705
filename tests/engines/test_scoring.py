from hashlib import blake2b
from math import log
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsqa.engines.scoring import Branches, edge_logprobs, option_logprobs, pack

CPU = torch.device("cpu")
tokens = st.integers(1, 4)
paths = st.lists(tokens, min_size=1, max_size=5).map(tuple)


@st.composite
def questions(draw):
    """Options with one or two ends; spelled apart by an end token that is nowhere else."""
    stems = draw(st.lists(paths, min_size=1, max_size=12, unique=True))
    ends = draw(st.sampled_from([((9,),), ((8, 9), (9,))]))
    suffix = draw(st.lists(tokens, min_size=1, max_size=6).map(tuple))
    return Branches(suffix, tuple(tuple(stem + end for end in ends) for stem in stems))


def step(context, token):
    """A made-up log p(token | context)."""
    digest = blake2b(repr((context, token)).encode(), digest_size=4).digest()
    return log((int.from_bytes(digest) % 999 + 1) / 1000)


def context(group, node):
    """Tokens that a node of the packed row sees, itself included, read off its mask."""
    return tuple(group.ids[group.mask[node]].tolist())


@given(st.lists(questions(), min_size=1, max_size=4), st.integers(5, 60))
def test_packed_scores_are_those_of_each_option_alone(asked, limit):
    groups = pack(asked, CPU, limit)
    seen = [[False] * len(q.options) for q in asked]
    for group in groups:
        single = len(group.shares) == 1 and group.shares[0].options.stop - group.shares[0].options.start == 1
        assert len(group) <= limit or single
        edges = [
            step(context(group, int(group.heads[h])), int(t))
            for h, t in zip(group.edge_heads, group.edge_tokens, strict=True)
        ]
        for share in group.shares:
            scores = option_logprobs(torch.tensor([edges]), share)[0]
            branches = asked[share.question]
            for k, score in zip(range(share.options.start, share.options.stop), scores.tolist(), strict=True):
                ways = [
                    sum(step(branches.suffix + path[:i], path[i]) for i in range(len(path)))
                    for path in branches.options[k]
                ]
                assert score == pytest.approx(torch.tensor(ways).logsumexp(0).item(), abs=1e-4)
                assert not seen[share.question][k]
                seen[share.question][k] = True
    assert all(all(options) for options in seen)


@given(st.lists(questions(), min_size=1, max_size=3))
def test_positions_are_those_of_a_text_of_its_own(asked):
    for group in pack(asked, CPU, 1024):
        assert group.depths.tolist() == [len(context(group, node)) - 1 for node in range(len(group))]
        assert group.edge_heads.tolist() == sorted(group.edge_heads.tolist())


def test_shared_beginnings_are_read_once():
    hundred = tuple(((*map(int, str(n)), 99),) for n in range(100))
    (group,) = pack([Branches((1, 2), hundred)], CPU, 1024)
    assert len(group) == 2 + 10 + 90


@pytest.mark.parametrize("most", [1, 40, 1 << 20])
def test_logits_in_pieces(most, monkeypatch):
    monkeypatch.setattr("rsqa.engines.scoring.MAX_LOGITS", most)
    (group,) = pack([Branches((1,), (((2, 3, 5),), ((2, 4),), ((6, 5),)))], CPU, 1024)
    head = torch.nn.Linear(4, 10, bias=False)
    hidden = torch.randn(3, len(group.heads), 4)
    expected = head(hidden).log_softmax(-1)[:, group.edge_heads, group.edge_tokens]
    language = SimpleNamespace(head=head.weight, logits=head)
    torch.testing.assert_close(edge_logprobs(language, hidden, group), expected)
