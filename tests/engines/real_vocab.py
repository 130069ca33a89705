"""The vocabulary of Qwen2-VL, rebuilt from the ranks that the package dashscope ships."""

import base64
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


def ranks():
    """Bytes of a token -> its id, 0 … 151 642."""
    lines = (Path(find_spec("dashscope").origin).parent / "resources" / "qwen.tiktoken").read_bytes().splitlines()
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}


def qwen_tokenizer():
    known = ranks()
    letters = bytes_to_unicode()

    def spell(token):
        return "".join(letters[byte] for byte in token)

    # Joining whatever pair gives the token of lowest rank is joining by a list of all pairs in order of that rank.
    pairs = [(t[:i], t[i:]) for t in known for i in range(1, len(t)) if t[:i] in known and t[i:] in known]
    pairs.sort(key=lambda pair: (known[pair[0] + pair[1]], known[pair[0]], known[pair[1]]))
    model = models.BPE({spell(t): i for t, i in known.items()}, [(spell(a), spell(b)) for a, b in pairs])
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return tokenizer


def join_bytes(text, known):
    """The tokens of one piece of text by the definition of byte-pair encoding: slow, and nobody's code but ours."""
    parts = [bytes([byte]) for byte in text.encode()]
    while True:
        found = [(known[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in known]
        if not found:
            return [known[part] for part in parts]
        at = min(found)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
