"""Training passes against recordings of the authors': hidden states, logits at the labels, losses."""

import pytest
import torch

CASES = ["t2i_no_line_96x96", "t2i_line_break_96x160", "t2i_batch2_96x128", "edit_96x128", "understanding"]
HIDDEN, LOGITS, LOSS = 1e-4, 2e-4, 2e-5  # the recordings themselves are off by up to 1.5e-5, 5e-5 and 7e-7 of float64


def _inputs(data):
    inputs = {key: data[key] for key in ("input_ids", "attention_mask", "labels")}
    if "target_pixels" in data:  # an edit
        inputs["pixel_values"] = data["semantic_pixel_values"]
        inputs["source_pixel_values"] = [data["source_pixels"]]
        inputs["source_mask"] = data["masked"]
        inputs["target_pixel_values"] = [data["target_pixels"]]
    elif "pixels" in data:
        inputs["target_pixel_values"] = list(data["pixels"])
    else:
        inputs["pixel_values"] = data["pixel_values"]
    if "image_grid_thw" in data:
        inputs["image_grid_thw"] = data["image_grid_thw"]
    return inputs


def _columns(data, logits):
    """The vocabulary columns that were recorded: all of a small vocabulary, both ends of the full one."""
    if data["text_logits_cols"].shape[-1] == logits.shape[-1]:
        return logits
    return torch.cat([logits[:, :2048], logits[:, 151600:]], dim=-1)


@pytest.mark.parametrize("name", CASES)
def test_training_pass(golden, name):
    data = golden.tensors(f"forward/{name}")
    with torch.no_grad():
        output = golden.model(**_inputs(data), output_hidden_states=True)
    mask = data["attention_mask"].bool()
    hidden = output.hidden_states[-1]
    torch.testing.assert_close(hidden[mask], data["last_hidden_state"][mask], atol=HIDDEN, rtol=0)

    torch.testing.assert_close(_columns(data, output.logits), data["text_logits_cols"], atol=LOGITS, rtol=0)
    logsumexp = output.logits.logsumexp(dim=-1)
    torch.testing.assert_close(logsumexp, data["text_logits_logsumexp"], atol=LOGITS, rtol=0)
    assert torch.equal(output.logits.argmax(dim=-1), data["text_logits_argmax"])
    at_label = output.logits.gather(1, data["text_label"].unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(at_label, data["text_logits_at_label"], atol=LOGITS, rtol=0)

    task = {"e": "editing", "t": "generation", "u": "understanding"}[name[0]]
    expected = {f"{task}_text": data.get("text_token_loss", data["loss"])}
    if "image_logits" in data:
        torch.testing.assert_close(output.image_logits, data["image_logits"], atol=LOGITS, rtol=0)
        expected[f"{task}_image"] = data["image_token_loss"]
    assert set(output.losses) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(output.losses[key], value, atol=LOSS, rtol=0)
    torch.testing.assert_close(output.loss, data["loss"], atol=LOSS, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_positions(golden, name):
    data = golden.tensors(f"forward/{name}")
    positions, _ = golden.model.model.get_rope_index(
        data["input_ids"], image_grid_thw=data.get("image_grid_thw"), attention_mask=data["attention_mask"]
    )
    mask = data["attention_mask"].bool()
    assert torch.equal(positions[:, mask], data["position_ids"][:, mask])


def test_edit_features(golden):
    """The source's latents, masked latents and adapter outputs, and the vision tower's."""
    data = golden.tensors("forward/edit_96x128")
    model = golden.model.model
    with torch.no_grad():
        latents = model.encode_images([data["source_pixels"]])[1]
        masked = model._adapt_sources(latents, data["masked"])
        codes = model.encode_images([data["target_pixels"]])[0][0]
        edit = model.edit_adapter(model.vq_model.codebook_lookup(codes))
        vision = model.get_image_features(data["semantic_pixel_values"], data["image_grid_thw"]).pooler_output
    torch.testing.assert_close(latents[0], data["z"][0], atol=2e-5, rtol=0)
    torch.testing.assert_close(masked, data["pixel_features"], atol=2e-5, rtol=0)
    torch.testing.assert_close(edit, data["edit_features"][0], atol=2e-5, rtol=0)
    torch.testing.assert_close(torch.cat(vision), data["vision_features"], atol=2e-5, rtol=0)


def test_source_mask_matters(golden):
    data = golden.tensors("forward/edit_96x128")
    inputs = _inputs(data)
    with torch.no_grad():
        masked = golden.model(**inputs).loss
        inputs["source_mask"] = torch.zeros_like(data["masked"])
        assert not torch.isclose(golden.model(**inputs).loss, masked, atol=1e-3)
