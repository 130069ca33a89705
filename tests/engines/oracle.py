"""The reference: transformers' own forward and generate, one tile, one question, one option at a time, in float32.

It shares nothing with the engine but the card's words: the conversation is one string, tokenised as a whole.
"""

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from rsqa.tasks.prompts import query

NATIVE = {"shortest_edge": 3136, "longest_edge": 12_845_056}


class Oracle:
    def __init__(self, folder, card):
        self.card = card
        self.network = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.processor = Qwen2VLImageProcessorPil(size=NATIVE)

    def pixels(self, chip):
        """(3, H, W) uint8 -> what the Hugging Face processor makes of it."""
        return self.processor(images=np.moveaxis(chip, 0, 2), return_tensors="pt", input_data_format="channels_last")

    def ids(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def conversation(self, question, grid):
        n_image = int(grid.prod()) // 4
        return (
            f"<|im_start|>system\n{self.card.prompt.system}<|im_end|>\n<|im_start|>user\n"
            f"<|vision_start|>{'<|image_pad|>' * n_image}<|vision_end|>"
            f"{query(question, self.card.prompt)}<|im_end|>\n<|im_start|>assistant\n"
        )

    def inputs(self, chip, ids):
        image = self.pixels(chip)
        ids = torch.tensor([ids])
        return {
            "input_ids": ids,
            "pixel_values": image["pixel_values"],
            "image_grid_thw": image["image_grid_thw"],
            "mm_token_type_ids": (ids == self.network.config.image_token_id).int(),
        }

    def path_logprob(self, chip, before, after):
        """log p of the tokens `after` behind the tokens `before`, teacher-forced."""
        self.network.model.rope_deltas = None
        with torch.no_grad():
            logits = self.network(**self.inputs(chip, [*before, *after])).logits[0].float()
        steps = logits[len(before) - 1 : -1].log_softmax(-1)
        return float(steps[torch.arange(len(after)), torch.tensor(after)].sum())

    def option_logprob(self, chip, question, option):
        text = self.conversation(question, self.pixels(chip)["image_grid_thw"][0])
        before = self.ids(text)
        ways = []
        for end in self.card.prompt.answer_ends:
            whole = self.ids(text + option + end)
            assert whole[: len(before)] == before
            ways.append(self.path_logprob(chip, before, whole[len(before) :]))
        return float(np.logaddexp.reduce(ways))

    def option_logprobs(self, chips, question):
        return np.array([[self.option_logprob(chip, question, o) for o in question.options] for chip in chips])

    def generate(self, chip, question):
        """-> ids of the greedy reply, the end token included, and their mean log-probability."""
        before = self.ids(self.conversation(question, self.pixels(chip)["image_grid_thw"][0]))
        self.network.model.rope_deltas = None
        with torch.no_grad():
            out = self.network.generate(
                **self.inputs(chip, before),
                max_new_tokens=self.card.max_new_tokens,
                do_sample=False,
                num_beams=1,
                temperature=None,
                top_p=None,
                top_k=None,
                repetition_penalty=1.0,
                eos_token_id=[self.tokenizer.token_to_id("<|im_end|>"), self.tokenizer.token_to_id("<|endoftext|>")],
                return_dict_in_generate=True,
                output_logits=True,
            )
        ids = out.sequences[0, len(before) :].tolist()
        steps = torch.stack([step[0].float().log_softmax(-1) for step in out.logits])
        return ids, float(steps[torch.arange(len(ids)), torch.tensor(ids)].mean())
