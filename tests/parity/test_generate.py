"""Greedy generation against recordings of the authors', token for token."""

import pytest
import torch
from PIL import ImageChops

PLAIN = ["t2i_no_line_96x96_cfg1", "t2i_no_line_96x96_cfg3", "t2i_no_line_96x96_cfg3_equal_length"]
LINES = [
    "t2i_line_break_96x160_cfg1",
    "t2i_line_break_96x160_cfg3",
    "t2i_line_break_batch2_96x128_cfg1",
    "t2i_line_break_batch2_96x128_cfg3",
]
EDITS = ["edit_96x128_cfg1", "edit_96x128_cfg3"]
# Guidance takes one branch `scale` times and the other `scale - 1` times, with their rounding: at scale 3 recorded logits
# (up to 64) are off by 3e-4 of float64, and processors with other vector widths round otherwise.
LOGITS = 2e-4


def _inputs(golden, name):
    record, data = golden.json(f"generate/{name}"), golden.tensors(f"generate/{name}")
    pixels = (
        golden.tensors(f"generate/{record['pixel_inputs_in'].partition('.')[0]}")
        if "pixel_inputs_in" in record
        else data
    )
    inputs = {
        "target_grid_hw": torch.tensor(
            [[record["height"] // 16, record["width"] // 16]]
            * len(data["tokens"] if "tokens" in data else data["tokens.pad_masked"])
        )
    }
    for prefix, branch in (("", "cond"), ("negative_", "uncond")):
        for key in ("input_ids", "attention_mask", "image_grid_thw"):
            if f"{branch}_{key}" in data:
                inputs[prefix + key] = data[f"{branch}_{key}"]
        if f"{branch}_source_pixels" in pixels:
            inputs[f"{prefix}pixel_values"] = pixels[f"{branch}_semantic_pixel_values"]
            inputs[f"{prefix}source_pixel_values"] = list(pixels[f"{branch}_source_pixels"])
    return record, data, inputs


def _draw(golden, name, attend_padding):
    record, data, inputs = _inputs(golden, name)
    output = golden.model.generate(
        **inputs,
        generation_mode="image",
        guidance_scale=record["cfg_scale"],
        do_sample=False,
        line_breaks="no_line" not in name,
        attend_padding=attend_padding,
        return_dict_in_generate=True,
        output_scores=True,
    )
    return record, data, inputs, output


def _codes(golden, inputs, sequences):
    """The image codes of each row, without line breaks."""
    new = sequences[:, inputs["input_ids"].shape[1] :]
    first = golden.model.config.text_config.vocab_size
    return torch.stack([row[row >= first] - first for row in new])


@pytest.mark.parametrize("attend_padding", [False, True], ids=["pad_masked", "as_published_cuda"])
@pytest.mark.parametrize("name", PLAIN + LINES + EDITS)
def test_drawing(golden, name, attend_padding):
    record, data, inputs, output = _draw(golden, name, attend_padding)
    suffix = ""
    if record["has_padding"]:
        suffix = ".as_published_cuda" if attend_padding else ".pad_masked"
    assert torch.equal(_codes(golden, inputs, output.sequences), data[f"tokens{suffix}"])
    # the first eight codes' guided logits
    first = golden.model.config.text_config.vocab_size
    forced = [golden.model.config.end_of_line_token_id, golden.model.config.generate_end_token_id]
    new = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    steps = [step for step, token in enumerate(new) if token not in forced][:8]
    guided = torch.stack([output.scores[step][:, first:] for step in steps])
    tolerance = LOGITS * (2 * record["cfg_scale"] - 1)
    torch.testing.assert_close(guided, data[f"guided_logits_first8{suffix}"], atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", PLAIN + LINES + EDITS)
def test_pixels_and_pictures(golden, name):
    _, data, _, output = _draw(golden, name, attend_padding=False)
    pixels = golden.model.decode_image_tokens(output.sequences)
    if golden.name != "compact" or "decoded_pixels" in data:  # too large for the compact set, but for one
        torch.testing.assert_close(pixels, data["decoded_pixels"], atol=2e-5, rtol=0)
    images = golden.processor.post_process_multimodal_output(pixels, generation_mode="image")
    for index, image in enumerate(images):
        recorded = golden.image(f"generate/{name}.{index}")
        # pixels within 2e-5 may fall on either side of a truncated 8-bit step
        assert max(high for _, high in ImageChops.difference(image, recorded).getextrema()) <= 1


@pytest.mark.parametrize("name", PLAIN + LINES + EDITS)
def test_positions(golden, name):
    """Prompts and drawn tokens: drawn ones continue by one on all three axes."""
    _, data, inputs = _inputs(golden, name)
    for prefix, branch in (("", "cond"), ("negative_", "uncond")):
        mask = inputs[f"{prefix}attention_mask"]
        positions, _ = golden.model.model.get_rope_index(
            inputs[f"{prefix}input_ids"], image_grid_thw=inputs.get(f"{prefix}image_grid_thw"), attention_mask=mask
        )
        recorded = data[f"{branch}_position_ids"]
        steps = torch.arange(1, recorded.shape[-1] - mask.shape[1] + 1)
        full = torch.cat([positions, positions[:, :, -1:] + steps], dim=-1)
        whole_mask = torch.nn.functional.pad(mask, (0, len(steps)), value=1).bool()
        assert torch.equal(full[:, whole_mask], recorded[:, whole_mask])


def test_answering(golden):
    record, data = golden.json("generate/understanding_text"), golden.tensors("generate/understanding_text")
    batch = golden.processor(
        text=[record["prompt_text"]], images=[golden.image("generate/understanding_text")], return_tensors="pt"
    )
    assert torch.equal(batch["input_ids"], data["input_ids"])
    torch.testing.assert_close(batch["pixel_values"], data["pixel_values"], atol=1e-5, rtol=0)
    output = golden.model.generate(
        **batch,
        do_sample=False,
        max_new_tokens=data["tokens"].shape[1],
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert torch.equal(output.sequences[:, batch["input_ids"].shape[1] :], data["tokens"])
    logits = torch.stack(output.logits)
    columns = logits[:8]
    if data["logits_cols_first8"].shape[-1] != logits.shape[-1]:
        columns = torch.cat([logits[:8, :, :2048], logits[:8, :, 151600:]], dim=-1)
    torch.testing.assert_close(columns, data["logits_cols_first8"], atol=LOGITS, rtol=0)
    torch.testing.assert_close(logits.logsumexp(-1), data["logits_logsumexp"], atol=LOGITS, rtol=0)
    if "generated_text" in record:
        text = golden.processor.post_process_image_text_to_text(data["tokens"])[0]
        assert text == record["generated_text"]
