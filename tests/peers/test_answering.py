"""Text and questions about images: ours, stock, and that they say the same."""

import pytest
import torch

from .generation_checks import WritingChecks
from .model_checks import CLOSE, EmbeddingChecks, ModelChecks, TracingChecks
from .subjects import question_subject, stock_model, text_subject


@pytest.fixture(scope="module")
def stock(compact):
    return stock_model(compact.model)


class TestText(ModelChecks, EmbeddingChecks, WritingChecks):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, compact):
        return text_subject(compact, compact.model)

    def test_same_as_stock(self, subject, stock, greedy):
        real = subject.batch["attention_mask"].bool()  # ours gives padding another position
        torch.testing.assert_close(subject.scores(subject.model)[real], subject.scores(stock)[real], **CLOSE)
        assert torch.equal(subject.generate(stock), greedy)


class TestQuestions(ModelChecks, EmbeddingChecks, TracingChecks, WritingChecks):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, compact):
        return question_subject(compact, compact.model)

    def test_same_as_stock(self, subject, stock, greedy):
        real = subject.batch["attention_mask"].bool()
        assert torch.equal(subject.scores(subject.model)[real], subject.scores(stock)[real])
        assert torch.equal(subject.generate(stock), greedy)

    def test_mismatching_num_image_tokens(self, subject):
        batch = dict(subject.batch)
        batch["pixel_values"], batch["image_grid_thw"] = batch["pixel_values"][:16], batch["image_grid_thw"][:1]
        with pytest.raises(ValueError, match=r"room for .* vision tokens, but"):
            subject.model(**batch)

    def test_get_image_features_output(self, subject):
        grids = subject.batch["image_grid_thw"]
        seen = subject.model.get_image_features(subject.batch["pixel_values"], grids, return_dict=True).pooler_output
        assert [len(one) for one in seen] == (grids.prod(-1) // 4).tolist()


class TestStock(ModelChecks, EmbeddingChecks, WritingChecks):
    """The checks say of stock Qwen2.5-VL what they say of ours."""

    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, compact, stock):
        return text_subject(compact, stock)
