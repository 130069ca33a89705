"""Closed questions: the probability of every allowed answer in one forward, without a decode loop.

A question is a chain of suffix tokens, its options are a trie behind it. Several questions are packed in one row of at
most 1 024 tokens; each sees the image prefix and its own branch. Only where a branch goes on is the head applied.

B tiles, S packed tokens, R tokens with a head, E edges (one step from a token with a head to a token that may follow),
K options, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rsqa.models.language import Language
from rsqa.models.packing import TokenTree

MAX_LOGITS = 1 << 25
"""Logits in memory at once: 128 MiB in float32."""


@dataclass(frozen=True, slots=True)
class Branches:
    """A closed question as tokens."""

    suffix: tuple[int, ...]
    """From the end of the image to the first token of the answer; never empty."""
    options: tuple[tuple[tuple[int, ...], ...], ...]
    """Per option the token paths that spell it, one for each way to end an answer."""


@dataclass(frozen=True, slots=True)
class Share:
    """Options of one question that a group scores."""

    question: int
    """Index in the sequence given to `pack`."""
    options: slice
    paths: Tensor
    """(K, ends, steps) edges along the paths of an option; filled up with E, the edge that costs nothing."""


@dataclass(frozen=True, slots=True)
class Group:
    """One packed row."""

    ids: Tensor
    """(S,) tokens."""
    depths: Tensor
    """(S,) places behind the prefix."""
    mask: Tensor
    """(S, S) bool, true where row may look at column."""
    heads: Tensor
    """(R,) tokens whose next-token distribution is needed."""
    edge_heads: Tensor
    """(E,) index into `heads`, ascending."""
    edge_tokens: Tensor
    """(E,) the token that follows."""
    edge_ends: tuple[int, ...]
    """Per head, the number of edges up to its last one."""
    shares: tuple[Share, ...]

    def __len__(self) -> int:
        return self.ids.shape[0]


def pack(asked: Sequence[Branches], device: torch.device, limit: int) -> list[Group]:
    """Questions -> groups of at most `limit` tokens, or as many as one option of one question needs.

    A question that is too large for one group is cut between options; each piece has its own copy of the suffix.
    """
    groups: list[Group] = []
    builder = _Builder()
    for question, branches in enumerate(asked):
        for options, n_tokens in _portions(branches, limit):
            if len(builder.tree) and len(builder.tree) + n_tokens > limit:
                groups.append(builder.group(device))
                builder = _Builder()
            builder.add(question, branches, options)
    if len(builder.tree):
        groups.append(builder.group(device))
    return groups


def _portions(branches: Branches, limit: int) -> Iterator[tuple[slice, int]]:
    """Cut the options so that suffix and trie fit -> (options, tokens)."""
    first, nodes = 0, set[tuple[int, ...]]()
    for index, paths in enumerate(branches.options):
        more = {path[:length] for path in paths for length in range(1, len(path))}  # the last token needs no place
        if index > first and len(branches.suffix) + len(nodes | more) > limit:
            yield slice(first, index), len(branches.suffix) + len(nodes)
            first, nodes = index, set()
        nodes |= more
    yield slice(first, len(branches.options)), len(branches.suffix) + len(nodes)


class _Builder:
    """Grows one group."""

    def __init__(self) -> None:
        self.tree = TokenTree()
        self._edges: dict[tuple[int, int], int] = {}
        """(token in the tree, token that follows) -> edge in order of appearance."""
        self._shares: list[tuple[int, slice, list[list[list[int]]]]] = []

    def add(self, question: int, branches: Branches, options: slice) -> None:
        root = self.tree.add(branches.suffix)[-1]
        paths = [[self._walk(root, path) for path in ends] for ends in branches.options[options]]
        self._shares.append((question, options, paths))

    def _walk(self, root: int, path: Sequence[int]) -> list[int]:
        """Follow a path from `root`, adding what is missing -> its edges."""
        nodes = [root, *self.tree.add(path[:-1], after=root)]
        return [self._edges.setdefault(edge, len(self._edges)) for edge in zip(nodes, path, strict=True)]

    def group(self, device: torch.device) -> Group:
        order = sorted(self._edges, key=lambda edge: edge[0])
        place = {self._edges[edge]: index for index, edge in enumerate(order)}
        nodes = sorted({node for node, _ in order})
        row = {node: index for index, node in enumerate(nodes)}
        edge_rows = [row[node] for node, _ in order]
        ends = torch.bincount(torch.tensor(edge_rows)).cumsum(0).tolist()
        return Group(
            torch.tensor(self.tree.ids, device=device),
            self.tree.depths().to(device),
            self.tree.mask().to(device),
            torch.tensor(nodes, device=device),
            torch.tensor(edge_rows, device=device),
            torch.tensor([token for _, token in order], device=device),
            tuple(ends),
            tuple(Share(q, o, _padded(paths, place, len(order)).to(device)) for q, o, paths in self._shares),
        )


def _padded(paths: list[list[list[int]]], place: dict[int, int], filler: int) -> Tensor:
    ends = max(len(option) for option in paths)
    steps = max(len(path) for option in paths for path in option)
    table = torch.full((len(paths), ends, steps), filler)
    for k, option in enumerate(paths):
        for a, path in enumerate(option):
            table[k, a, : len(path)] = torch.tensor([place[edge] for edge in path])
    return table


def edge_logprobs(language: Language, hidden: Tensor, group: Group) -> Tensor:
    """(B, R, D) hidden states of the group's heads -> (B, E) log p(token), softmax over all V in float32."""
    b, r, _ = hidden.shape
    rows = max(1, MAX_LOGITS // (b * len(language.head)))
    pieces = []
    for first in range(0, r, rows):
        last = min(first + rows, r)
        edges = slice(group.edge_ends[first - 1] if first else 0, group.edge_ends[last - 1])
        logits = language.logits(hidden[:, first:last])  # (B, rows, V)
        chosen = logits[:, group.edge_heads[edges] - first, group.edge_tokens[edges]]
        pieces.append(chosen - logits.logsumexp(dim=-1)[:, group.edge_heads[edges] - first])
    return torch.cat(pieces, dim=1)


def option_logprobs(edges: Tensor, share: Share) -> Tensor:
    """(B, E) edges -> (B, K) log p(option), summed over the ways to end it."""
    with_filler = torch.cat([edges, edges.new_zeros(edges.shape[0], 1)], dim=1)
    return with_filler[:, share.paths].sum(dim=-1).logsumexp(dim=-1)
