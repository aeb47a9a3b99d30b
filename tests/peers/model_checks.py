"""The checks of models; names are those of transformers' own tests, what they do is written anew."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import nn

from .subjects import Subject

CLOSE = {"atol": 2e-4, "rtol": 2e-4}  # float32 sums in another order; worst seen on these models: 6e-5


class StorageChecks:
    """Saving, loading, precisions and configurations: of any model. Classes that inherit have a fixture `subject`."""

    def test_determinism(self, subject):
        assert torch.equal(subject.scores(subject.model), subject.scores(subject.model))

    def test_save_load(self, subject, tmp_path):
        subject.model.save_pretrained(tmp_path)
        loaded, info = type(subject.model).from_pretrained(tmp_path, output_loading_info=True)
        assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert (tmp_path / "model.safetensors").is_file()
        assert torch.equal(subject.scores(loaded.eval()), subject.scores(subject.model))

    def test_torch_save_load(self, subject, tmp_path):
        torch.save(subject.model.state_dict(), tmp_path / "weights.pt")
        other = type(subject.model)(copy.deepcopy(subject.model.config)).eval()
        other.load_state_dict(torch.load(tmp_path / "weights.pt"))
        assert torch.equal(subject.scores(other), subject.scores(subject.model))

    def test_from_pretrained_no_checkpoint(self, subject):
        config, weights = copy.deepcopy(subject.model.config), subject.model.state_dict()
        loaded = type(subject.model).from_pretrained(None, config=config, state_dict=weights)
        assert torch.equal(subject.scores(loaded.eval()), subject.scores(subject.model))

    def test_load_save_without_tied_weights(self, subject, tmp_path):
        config = copy.deepcopy(subject.model.config)
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
        model = type(subject.model)(config)
        model.save_pretrained(tmp_path)
        loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert not loaded.config.tie_word_embeddings
        for name, tensor in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], tensor), name

    def test_can_init_all_missing_weights(self, subject):
        config = copy.deepcopy(subject.model.config)
        loaded = type(subject.model).from_pretrained(None, config=config, state_dict={})
        reference = type(subject.model)(copy.deepcopy(config))
        for (name, tensor), known in zip(loaded.state_dict().items(), reference.state_dict().values(), strict=True):
            assert torch.isfinite(tensor).all() and tensor.abs().max() < 100, name
            if known.unique().numel() == 1:  # ones of norms, zeros of biases
                assert torch.equal(tensor, known), name
        for (name, buffer), known in zip(loaded.named_buffers(), reference.buffers(), strict=True):
            assert torch.equal(buffer, known), name

    def test_weights_that_are_there_stay_where_others_are_missing(self, subject):
        config = copy.deepcopy(subject.model.config)
        given = {name: tensor for name, tensor in list(subject.model.state_dict().items())[::2] if tensor.numel() > 1}
        loaded = type(subject.model).from_pretrained(None, config=config, state_dict=dict(given))
        state = loaded.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in given.items())
        assert all(torch.isfinite(tensor).all() for tensor in state.values())

    def test_can_be_initialized_on_meta(self, subject):
        with torch.device("meta"):
            model = type(subject.model)(copy.deepcopy(subject.model.config))
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}

    def test_can_load_with_device_context_manager(self, subject, tmp_path):
        subject.model.save_pretrained(tmp_path)
        with torch.device("cpu"):
            loaded = type(subject.model).from_pretrained(tmp_path)
        assert torch.equal(subject.scores(loaded.eval()), subject.scores(subject.model))

    def test_keep_in_fp32_modules(self, subject, tmp_path):
        """What a class lists stays float32 in float16, and in no other precision; what it lists strictly, in both."""
        computes = (nn.Linear, nn.Conv2d)
        first = next(name for name, module in subject.model.named_modules() if isinstance(module, computes))
        listed = type("Listed", (type(subject.model),), {"_keep_in_fp32_modules": [first]})
        subject.model.save_pretrained(tmp_path)
        strict = subject.model._keep_in_fp32_modules_strict or ()
        for dtype, kept in ((torch.float16, {first, *strict}), (torch.bfloat16, set(strict))):
            for name, parameter in listed.from_pretrained(tmp_path, dtype=dtype).named_parameters():
                stays = any(part in name for part in kept)
                assert parameter.dtype == (torch.float32 if stays else dtype), (name, dtype)

    def test_config(self, subject, tmp_path):
        """Writes and reads itself, with what a tool noted on it."""
        config = copy.deepcopy(subject.model.config)
        config.note_of_a_tool = {"epoch": 3}
        config.save_pretrained(tmp_path)
        loaded = type(config).from_pretrained(tmp_path)
        loaded.name_or_path = config.name_or_path
        assert loaded.to_dict() == config.to_dict() and loaded.note_of_a_tool == {"epoch": 3}
        assert type(config)(**config.to_dict()).to_dict() == config.to_dict()
        for name, value in (("output_hidden_states", True), ("tie_word_embeddings", False), ("id2label", {0: "a"})):
            assert getattr(type(config)(**{name: value}), name) == value

    def test_training(self, subject):
        model = subject.fresh().train()
        model(**subject.training).loss.backward()
        grown = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert grown and all(
            torch.isfinite(parameter.grad).all() for name, parameter in model.named_parameters() if name in grown
        )


class ModelChecks(StorageChecks):
    """Attention, embeddings, outputs and gradients: of models with a language model."""

    def test_forward_signature(self, subject):
        assert next(iter(inspect.signature(subject.model.forward).parameters)) == "input_ids"

    def test_model_outputs_equivalence(self, subject):
        with torch.no_grad():
            named = subject.model(**subject.batch, use_cache=False)
            plain = subject.model(**subject.batch, use_cache=False, return_dict=False)
        assert isinstance(plain, tuple)
        for one, other in zip(plain, named.to_tuple(), strict=True):
            assert not isinstance(one, torch.Tensor) or torch.equal(one, other)

    def test_batching_equivalence(self, subject):
        alone, together = subject.scores(subject.model, subject.single), subject.scores(subject.model)
        assert alone.shape[1] < together.shape[1]
        torch.testing.assert_close(together[0, -alone.shape[1] :], alone[0], **CLOSE)

    def test_eager_matches_sdpa_inference(self, subject):
        eager = subject.fresh()
        eager.set_attn_implementation("eager")
        real = subject.batch["attention_mask"].bool()
        torch.testing.assert_close(subject.scores(eager)[real], subject.scores(subject.model)[real], **CLOSE)

    def test_custom_4d_attention_mask(self, subject):
        """A mask of one's own, here the usual one written out."""
        mask = subject.batch["attention_mask"].bool()
        causal = torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool).tril() & mask[:, None, None, :]
        causal |= torch.eye(mask.shape[1], dtype=torch.bool)
        positions = _positions(subject)
        mine = subject.batch | {"attention_mask": causal, "position_ids": positions}
        theirs = subject.batch | {"position_ids": positions}
        scores = [subject.scores(subject.model, batch)[mask] for batch in (mine, theirs)]
        torch.testing.assert_close(scores[0], scores[1], **CLOSE)

    def test_hidden_states_output(self, subject):
        layers = subject.model.config.get_text_config().num_hidden_layers
        with torch.no_grad():
            states = subject.model(**subject.batch, output_hidden_states=True).hidden_states
        assert len(states) == layers + 1
        assert {state.shape[:2] for state in states} == {subject.batch["input_ids"].shape}

    def test_attention_outputs(self, subject):
        model = subject.fresh()
        model.set_attn_implementation("eager")
        with torch.no_grad():
            weights = model(**subject.batch, output_attentions=True).attentions
        text, length = model.config.get_text_config(), subject.batch["input_ids"].shape[1]
        assert len(weights) == text.num_hidden_layers
        assert weights[0].shape == (2, text.num_attention_heads, length, length)

    def test_retain_grad_hidden_states_attentions(self, subject):
        model = subject.fresh()
        model.set_attn_implementation("eager")
        outputs = model(**subject.batch, output_hidden_states=True, output_attentions=True)
        kept = outputs.hidden_states[0], outputs.attentions[0]
        for tensor in kept:
            tensor.retain_grad()
        subject.read(outputs).flatten()[-1].backward()
        assert all(tensor.grad is not None for tensor in kept)

    def test_model_get_set_embeddings(self, subject):
        model = subject.fresh()
        table = model.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        fresh = nn.Embedding(*table.weight.shape)
        model.set_input_embeddings(fresh)
        assert model.get_input_embeddings() is fresh and isinstance(model.get_output_embeddings(), nn.Linear)

    def test_resize_tokens_embeddings(self, subject):
        model = subject.fresh()
        size = model.config.get_text_config().vocab_size
        rows = model.get_input_embeddings().weight.clone()
        for new in (size + 10, size):
            assert model.resize_token_embeddings(new).num_embeddings == new
            assert model.config.get_text_config().vocab_size == new
            assert model.get_output_embeddings().weight.shape[0] == new
            assert torch.equal(model.get_input_embeddings().weight[:size], rows)
            assert torch.isfinite(subject.scores(model)).all()
        assert torch.equal(subject.scores(model), subject.scores(subject.model))

    def test_resize_embeddings_untied(self, subject, tmp_path):
        config = copy.deepcopy(subject.model.config)
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
        model = type(subject.model)(config).eval()
        size = config.get_text_config().vocab_size
        model.resize_token_embeddings(size + 6)
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path).eval()
        assert loaded.lm_head.weight.shape[0] == loaded.get_input_embeddings().num_embeddings == size + 6
        assert torch.equal(subject.scores(loaded), subject.scores(model))

    def test_tied_weights_keys(self, subject, tmp_path):
        config = copy.deepcopy(subject.model.config)
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = True
        model = type(subject.model)(config).eval()
        assert model.lm_head.weight is model.get_input_embeddings().weight
        model.save_pretrained(tmp_path)
        loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"] and loaded.lm_head.weight is loaded.get_input_embeddings().weight

    def test_correct_missing_keys(self, subject, tmp_path):
        """A body alone becomes a model whose heads are told to be new."""
        subject.model.base_model.save_pretrained(tmp_path)
        loaded, info = type(subject.model).from_pretrained(tmp_path, output_loading_info=True)
        body = subject.model.base_model_prefix
        heads = {
            name for name in loaded.state_dict() if not name.startswith(f"{body}.")
        } - loaded.all_tied_weights_keys.keys()
        assert set(info["missing_keys"]) == heads and not info["unexpected_keys"]

    def test_can_load_ignoring_mismatched_shapes(self, subject, tmp_path):
        subject.model.save_pretrained(tmp_path)
        config = copy.deepcopy(subject.model.config)
        config.get_text_config().vocab_size += 8
        with pytest.raises(RuntimeError, match=r"size mismatch|mismatched"):
            type(subject.model).from_pretrained(tmp_path, config=config)
        loaded, info = type(subject.model).from_pretrained(
            tmp_path, config=config, ignore_mismatched_sizes=True, output_loading_info=True
        )
        assert info["mismatched_keys"]
        assert all(torch.isfinite(parameter).all() for parameter in loaded.parameters())

    def test_training_gradient_checkpointing(self, subject):
        """The same loss and the same gradients, whichever kind of checkpoint."""
        kinds = (None, {"use_reentrant": False}, {"use_reentrant": True})
        losses, gradients = zip(*(_gradients(subject, kind) for kind in kinds), strict=True)
        assert losses[0] == losses[1] == losses[2]
        for name, gradient in gradients[0].items():
            for other in gradients[1:]:
                torch.testing.assert_close(other[name], gradient, msg=name, **CLOSE)

    def test_gradient_checkpointing_enable_disable(self, subject):
        model = subject.fresh()
        for wanted, switch in (
            (True, model.activation_checkpointing_enable),
            (False, model.activation_checkpointing_disable),
        ):
            switch()
            assert model.is_activation_checkpointing == wanted

    def test_peft_gradient_checkpointing_enable_disable(self, subject):
        """Adapters learn although all else is frozen and recomputed."""
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(subject.fresh(), peft.LoraConfig(target_modules=["q_proj"], r=2))
        model.get_base_model().activation_checkpointing_enable()
        model.enable_input_require_grads()
        model.train()
        model(**subject.training).loss.backward()
        named = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
        learned = [name for name, gradient in named.items() if gradient is not None and gradient.abs().max() > 0]
        assert any("lora_B" in name for name in learned)

    def test_causal_lm_can_accept_kwargs(self, subject):
        given = {"num_items_in_batch": torch.tensor(7), "output_attentions": False}
        assert torch.isfinite(subject.model(**subject.training, **given).loss)


class EmbeddingChecks:
    """Rows that were embedded ahead: of models of text."""

    def test_inputs_embeds_matches_input_ids(self, subject):
        """Rows that the caller embeds; pictures still stand in the places of their tokens, if any."""
        table = subject.model.get_input_embeddings()
        ids = subject.batch["input_ids"]
        batch = {name: value for name, value in subject.batch.items() if name != "input_ids"}
        batch["position_ids"] = _positions(subject)
        mine = subject.scores(subject.model, batch | {"inputs_embeds": table(ids)})
        theirs = subject.scores(subject.model, batch | {"input_ids": ids})
        torch.testing.assert_close(mine, theirs, **CLOSE)


class TracingChecks:
    """Graphs, which take seconds to make: for the subjects with most in them."""

    def test_torch_export(self, subject):
        """One graph of whole rows without a look at their values, and the same numbers."""
        batch = without_pixels(subject)
        module = _Scores(subject)
        with torch.no_grad():
            exported = torch.export.export(module, (copy.copy(batch),), strict=False)
            torch.testing.assert_close(exported.module()(copy.copy(batch)), module(copy.copy(batch)), **CLOSE)


class _Scores(nn.Module):
    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.model, self.read = subject.model, subject.read

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        return self.read(self.model(**batch, use_cache=False))


def without_pixels(subject: Subject) -> dict[str, Any]:
    """A batch with what the vision tower sees, as `generate` hands it on, and codes and latents in the place of pixels.

    The tower itself is traced by no version of transformers; the image tokenizer has a check of its own.
    """
    batch = dict(subject.batch)
    pixels, grids = batch.pop("pixel_values", None), batch.pop("image_grid_thw", None)
    if pixels is not None:
        batch["position_ids"] = _positions(subject)
        with torch.no_grad():
            seen = subject.model.get_image_features(pixels, grids, return_dict=True)
        batch["mm_encoder_outputs"] = {"image": seen}
    encode = getattr(subject.model.base_model, "encode_images", None)
    if "target_pixel_values" in batch:
        batch["target_image_tokens"] = [codes.view(2, 2) for codes in encode(batch.pop("target_pixel_values"))[0]]
    if "source_pixel_values" in batch:
        batch["source_latents"] = encode(batch.pop("source_pixel_values"))[1]
    return batch


def _positions(subject: Subject) -> torch.Tensor:
    """Three positions of each token, `(3, B, T)`; of plain models `(B, T)`."""
    mask = subject.batch["attention_mask"]
    body = subject.model.base_model
    grids = subject.batch.get("image_grid_thw")
    if grids is None or not hasattr(body, "get_rope_index"):
        return (mask.cumsum(-1) - 1).clamp(min=0)
    types = subject.batch["mm_token_type_ids"]
    ids = subject.batch["input_ids"]
    return body.get_rope_index(ids, types, image_grid_thw=grids, attention_mask=mask)[0]


def _gradients(subject: Subject, kind: dict[str, Any] | None) -> tuple[float, dict[str, torch.Tensor]]:
    model = subject.fresh().train()
    if kind is not None:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kind)
        model.enable_input_require_grads()
    loss = model(**subject.training).loss
    loss.backward()
    return loss.item(), {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
