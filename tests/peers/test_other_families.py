"""The same checks of Show-o2 and HieraQuery, as far as they have what is checked."""

import pytest
import torch

from .model_checks import EmbeddingChecks, ModelChecks, StorageChecks
from .subjects import Subject


class TestShowO2(ModelChecks, EmbeddingChecks):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls):
        pytest.importorskip("diffusers")
        from showo2.tiny_showo2 import BOS, left_padded, tiny_showo2

        batch = left_padded([BOS, 3, 4], [BOS, 5, 6, 7, 8])
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        single = left_padded([BOS, 3, 4])
        return Subject(tiny_showo2(), batch, single, {**batch, "labels": labels})

    def test_stop_strings(self, subject, compact):
        """Arguments of `generate` alone do not reach `forward`."""
        prompt, settings = subject.batch, {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}
        plain = subject.model.generate(**prompt, **settings)
        assert torch.equal(subject.model.generate(**prompt, **settings, tokenizer=compact.processor.tokenizer), plain)


class TestHieraQuery(StorageChecks):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls):
        pytest.importorskip("diffusers")
        from tiny_hieraquery import tiny_batch, tiny_model

        model, generator = tiny_model(), torch.Generator().manual_seed(0)
        targets = list(torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1)
        scales = len(model.config.scales)
        noise = [torch.randn(2, 3, side, side, generator=generator) for side in (8, 16)[-scales:]]
        sigmas = [torch.tensor([0.3, 0.7])] * scales
        batch = {**tiny_batch(), "targets": targets, "noise": noise, "sigmas": sigmas}
        return Subject(model, batch, batch, batch, lambda outputs: outputs.loss)
