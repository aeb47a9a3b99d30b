"""The image tokenizer as a model of its own."""

import inspect

import pytest
import torch

from .model_checks import CLOSE, StorageChecks
from .subjects import Subject


class TestImageTokenizer(StorageChecks):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, compact):
        pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
        batch, single = {"pixel_values": pixels}, {"pixel_values": pixels[:1]}
        return Subject(compact.model.vq_model, batch, single, {}, lambda outputs: outputs.latents)

    def test_training(self, subject):
        """It is frozen where it is part of a model; alone it learns."""
        model = subject.fresh().train()
        encoded = model(**subject.batch)
        (encoded.latents.sum() + model.decode(encoded.image_tokens).square().mean()).backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())

    def test_forward_signature(self, subject):
        assert (
            next(iter(inspect.signature(subject.model.forward).parameters))
            == "pixel_values"
            == subject.model.main_input_name
        )

    def test_batching_equivalence(self, subject):
        torch.testing.assert_close(
            subject.scores(subject.model)[:1], subject.scores(subject.model, subject.single), **CLOSE
        )

    def test_model_get_set_embeddings(self, subject):
        """It has no words; its codebook is looked up by `codebook_lookup`."""
        assert subject.model.get_output_embeddings() is None

    def test_torch_export(self, subject):
        class Decoder(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = subject.model

            def forward(self, codes):
                return self.model(image_tokens=codes)

        codes = subject.model(**subject.batch).image_tokens
        with torch.no_grad():
            exported = torch.export.export(Decoder(), (codes,), strict=False).module()
            torch.testing.assert_close(exported(codes), subject.model.decode(codes), **CLOSE)
