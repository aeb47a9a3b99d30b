"""The baseline: how the released scripts decode an image, re-created on our modules from a description of them.

What it keeps of their structure:

- both guidance branches as one batch of 2B rows; a cache that grows by concatenation;
- the text head on the hidden states of every forward, although nobody reads text logits, and all layers' hidden states
  kept (`output_hidden_states=True`);
- every token, line breaks too, is a forward of its own: 1,055 for 512x512 pixels;
- guidance, then top-k as a mask over all codes, softmax and `multinomial`;
- the next input is looked up in the codebook and sent through the adapter.

Where there was a choice we took the cheaper one: top-k by threshold and not by a full sort, the image head only where a
code follows, and the images of a batch drawn together (the released scripts draw one at a time).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache


def top_k_mask(logits: torch.Tensor, top_k: int) -> torch.Tensor:
    """Everything below the k-th largest value becomes -inf."""
    threshold = torch.topk(logits, min(top_k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < threshold, -torch.inf)


def _choose(logits: torch.Tensor, guidance_scale: float, top_k: int, do_sample: bool) -> torch.Tensor:
    """Codes `(B, 1)` from raw logits `(2B, codes)`."""
    conditional, unconditional = logits.float().chunk(2)
    guided = unconditional + guidance_scale * (conditional - unconditional)
    if not do_sample:
        return guided.argmax(dim=-1, keepdim=True)
    return torch.multinomial(torch.softmax(top_k_mask(guided, top_k), dim=-1), num_samples=1)


def _prefill_mask(mask: torch.Tensor) -> torch.Tensor:
    """`(2B, 1, L, L)` bool: tokens see tokens before them; rows of padding see everything, as released."""
    length = mask.shape[1]
    token = mask.bool()
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    return ((causal & token[:, None, :]) | ~token[:, :, None]).unsqueeze(1)


@torch.no_grad()
def draw_released(
    model: Any,
    inputs: dict[str, torch.Tensor],
    *,
    line_breaks: bool = True,
    guidance_scale: float = 3.0,
    top_k: int = 1000,
    do_sample: bool = True,
    attend_padding: bool = True,
) -> torch.Tensor:
    """Draws one image per prompt.

    Args:
        model: a `WallarooForConditionalGeneration`.
        inputs: prompts of both branches, equally long, and one grid for all, as the processor gives them.
        attend_padding: padding is attended after the prefill, as released; False = never, our default.

    Returns:
        Codes `(B, rows * cols)`.
    """
    inner, decoder = model.model, model.model.language_model
    rows, cols = inputs["target_grid_hw"][0].tolist()
    ids = torch.cat([inputs["input_ids"], inputs["negative_input_ids"]])
    mask = torch.cat([inputs["attention_mask"], inputs["negative_attention_mask"]])
    cache = DynamicCache(config=model.config.get_text_config())
    positions, _ = inner.get_rope_index(ids, attention_mask=mask)
    line_break = ids.new_full((ids.shape[0], 1), model.config.end_of_line_token_id)

    def forward(embeds: torch.Tensor, attention_mask: Any) -> torch.Tensor:
        outputs = decoder(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=positions,
            cache=cache,
            use_cache=True,
            output_hidden_states=True,
        )
        model.lm_head(outputs.last_hidden_state)  # computed and not read
        return outputs.last_hidden_state[:, -1]

    def step(embeds: torch.Tensor) -> torch.Tensor:
        nonlocal positions, mask
        positions = positions[:, :, -1:] + 1
        if attend_padding:
            return forward(embeds, None)
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        return forward(embeds, mask)

    first_mask = {"full_attention": _prefill_mask(mask)} if attend_padding else mask
    hidden = forward(decoder.embed_tokens(ids), first_mask)
    codes = []
    for index in range(rows * cols):
        codes.append(_choose(model.generation_head(hidden), guidance_scale, top_k, do_sample))
        if index == rows * cols - 1:
            break
        vectors = inner.vq_model.codebook_lookup(codes[-1].repeat(2, 1))
        hidden = step(inner.generation_adapter(vectors))
        if line_breaks and (index + 1) % cols == 0:
            hidden = step(decoder.embed_tokens(line_break))
    return torch.cat(codes, dim=1)
