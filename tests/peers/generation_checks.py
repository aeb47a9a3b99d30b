"""The checks of generation; names are those of transformers' own tests, what they do is written anew."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import DynamicCache, GenerationMixin, LogitsProcessor, StaticCache


class GenerationChecks:
    """What drawing and writing have in common. Classes that inherit have a fixture `subject`."""

    @pytest.fixture(scope="class")
    @classmethod
    def greedy(cls, subject) -> torch.Tensor:
        """What everything is compared with."""
        return subject.generate(subject.model)

    def test_inherits_generation_mixin(self, subject):
        assert isinstance(subject.model, GenerationMixin) and subject.model.can_generate()

    def test_greedy_generate(self, subject, greedy):
        prompt = subject.prompt["input_ids"]
        assert torch.equal(greedy[:, : prompt.shape[1]], prompt) and greedy.shape[1] > prompt.shape[1]
        assert torch.equal(subject.generate(subject.model), greedy)

    def test_greedy_generate_dict_outputs_use_cache(self, subject, greedy):
        asked = {"output_scores": True, "output_logits": True, "output_hidden_states": True}
        outputs = subject.generate(subject.model, return_dict_in_generate=True, **asked)
        assert torch.equal(outputs.sequences, greedy)
        steps = greedy.shape[1] - subject.prompt["input_ids"].shape[1]
        counts = {len(outputs.scores), len(outputs.logits), len(outputs.hidden_states)}
        if "generation_mode" in subject.settings:  # drawing asks nobody for the tokens between its codes
            assert all(1 <= count <= steps for count in counts)
        else:
            assert counts == {steps}
        assert {score.shape[0] for score in outputs.scores} == {len(greedy)}
        assert outputs.cache.get_seq_length() >= greedy.shape[1] - 2  # a picture's end is given to nobody

    def test_sample_generate(self, subject):
        drawn = []
        for seed in (0, 0, 1, 2, 3):
            torch.manual_seed(seed)
            drawn.append(subject.generate(subject.model, do_sample=True, temperature=1.5, top_k=50).tolist())
        assert drawn[0] == drawn[1] and any(other != drawn[0] for other in drawn[2:])

    def test_left_padding_compatibility(self, subject, greedy):
        alone = subject.generate(subject.model, subject.single_prompt)
        pad = subject.prompt["input_ids"].shape[1] - subject.single_prompt["input_ids"].shape[1]
        assert pad > 0 and torch.equal(greedy[0, pad : pad + alone.shape[1]], alone[0])

    def test_past_key_values_format(self, subject):
        cache = subject.generate(subject.model, return_dict_in_generate=True).cache
        text = subject.model.config.get_text_config()
        assert len(cache.layers) == text.num_hidden_layers
        assert cache.layers[0].keys.shape[1] == text.num_key_value_heads

    def test_generate_with_static_cache(self, subject, greedy):
        outputs = subject.generate(subject.model, cache_implementation="static", return_dict_in_generate=True)
        assert torch.equal(outputs.sequences, greedy) and isinstance(outputs.cache, StaticCache)

    def test_eager_matches_sdpa_generate(self, subject, greedy):
        eager = subject.fresh()
        eager.set_attn_implementation("eager")
        assert torch.equal(subject.generate(eager), greedy)

    def test_logits_processor_of_ones_own(self, subject):
        """It is asked for every word and every code, of which there are four."""
        counted = _Counting()
        subject.generate(subject.model, logits_processor=[counted])
        assert counted.calls >= 4

    def test_num_return_sequences(self, subject, greedy):
        twice = subject.generate(subject.model, num_return_sequences=2, do_sample=True, top_k=1)
        assert torch.equal(twice[::2], twice[1::2]) and torch.equal(twice[::2], greedy)


class WritingChecks(GenerationChecks):
    """What concerns text alone."""

    def test_beam_search_generate(self, subject):
        outputs = subject.generate(subject.model, num_beams=3, num_return_sequences=2)
        assert len(outputs) == 2 * len(subject.prompt["input_ids"])

    def test_beam_search_generate_dict_outputs_use_cache(self, subject):
        asked = {"return_dict_in_generate": True, "output_scores": True}
        kept, again = (subject.generate(subject.model, num_beams=2, use_cache=use, **asked) for use in (True, False))
        assert torch.equal(kept.sequences, again.sequences)
        torch.testing.assert_close(kept.sequences_scores, again.sequences_scores, atol=1e-5, rtol=1e-4)

    def test_beam_sample_generate(self, subject):
        torch.manual_seed(0)
        assert len(subject.generate(subject.model, num_beams=2, do_sample=True)) == 2

    def test_greedy_generate_without_cache(self, subject, greedy):
        assert torch.equal(subject.generate(subject.model, use_cache=False), greedy)

    def test_assisted_decoding_matches_greedy_search(self, subject):
        alone = subject.generate(subject.model, subject.single_prompt)
        assistant = subject.fresh()
        helped = subject.generate(subject.model, subject.single_prompt, assistant_model=assistant)
        assert torch.equal(helped, alone)

    def test_assisted_decoding_sample(self, subject):
        torch.manual_seed(0)
        given = {"assistant_model": subject.fresh(), "do_sample": True}
        assert subject.generate(subject.model, subject.single_prompt, **given).shape[0] == 1

    def test_prompt_lookup_decoding_matches_greedy_search(self, subject):
        alone = subject.generate(subject.model, subject.single_prompt)
        assert torch.equal(subject.generate(subject.model, subject.single_prompt, prompt_lookup_num_tokens=2), alone)

    def test_generate_from_inputs_embeds(self, subject, greedy):
        prompt = dict(subject.prompt)
        embeds = subject.model.get_input_embeddings()(prompt["input_ids"])
        width = prompt["input_ids"].shape[1]
        both = subject.generate(subject.model, prompt | {"inputs_embeds": embeds})
        assert torch.equal(both, greedy)
        other = subject.generate(subject.model, prompt | {"inputs_embeds": embeds.flip(1)})
        assert torch.equal(other[:, :width], prompt["input_ids"]) and not torch.equal(other, greedy)
        if "image_grid_thw" not in prompt:  # whose places in the embeddings nobody tells
            prompt.pop("input_ids")
            assert torch.equal(subject.generate(subject.model, prompt | {"inputs_embeds": embeds}), greedy[:, width:])

    def test_generate_from_inputs_embeds_with_static_cache(self, subject, greedy):
        embeds = subject.model.get_input_embeddings()(subject.prompt["input_ids"])
        given = {**subject.prompt, "inputs_embeds": embeds}
        assert torch.equal(subject.generate(subject.model, given, cache_implementation="static"), greedy)

    def test_generate_from_inputs_embeds_beams(self, subject):
        embeds = subject.model.get_input_embeddings()(subject.prompt["input_ids"])
        plain = subject.generate(subject.model, num_beams=2)
        assert torch.equal(
            subject.generate(subject.model, {**subject.prompt, "inputs_embeds": embeds}, num_beams=2), plain
        )

    def test_generate_continue_from_past_key_values(self, subject):
        whole = subject.generate(subject.model, max_new_tokens=6, min_new_tokens=6)
        first = subject.generate(subject.model, max_new_tokens=3, min_new_tokens=3, return_dict_in_generate=True)
        mask = subject.prompt["attention_mask"]
        rest = subject.model.generate(
            first.sequences,
            attention_mask=torch.cat([mask, mask.new_ones(len(mask), 3)], dim=1),
            cache=first.cache,
            do_sample=False,
            max_new_tokens=3,
            min_new_tokens=3,
        )
        assert torch.equal(rest, whole)

    def test_generate_methods_with_logits_to_keep(self, subject, greedy):
        assert torch.equal(subject.generate(subject.model, logits_to_keep=0), greedy)

    def test_prepare_inputs_for_generation_kwargs_forwards(self, subject):
        ids = subject.prompt["input_ids"]
        given = {"cache": DynamicCache(), "attention_mask": subject.prompt["attention_mask"], "logits_to_keep": 3}
        prepared = subject.model.prepare_inputs_for_generation(ids, is_first_iteration=True, **given)
        assert prepared["logits_to_keep"] == 3 and torch.equal(prepared["input_ids"], ids)

    def test_chunked_prefill(self, subject, greedy):
        assert torch.equal(subject.generate(subject.model, prefill_chunk_size=7), greedy)

    def test_stop_strings(self, subject, greedy, compact):
        """The words' tokenizer is an argument of `generate`, as those of an assistant; none of them is `forward`'s."""
        tokenizer = compact.processor.tokenizer
        width = subject.prompt["input_ids"].shape[1]
        stop = tokenizer.decode(greedy[0, width])
        settings = {"stop_strings": stop, "tokenizer": tokenizer, "min_new_tokens": None}
        stopped = subject.generate(subject.model, subject.single_prompt, **settings)
        assert stopped.shape[1] == subject.single_prompt["input_ids"].shape[1] + 1
        with_tokenizer = subject.generate(subject.model, tokenizer=tokenizer, num_beams=2)
        assert torch.equal(with_tokenizer, subject.generate(subject.model, num_beams=2))

    def test_generation_config_of_ones_own(self, subject, greedy):
        config = copy.deepcopy(subject.model.generation_config)
        config.update(**subject.settings)
        assert torch.equal(subject.model.generate(**subject.prompt, generation_config=config), greedy)


class _Counting(LogitsProcessor):
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return scores
