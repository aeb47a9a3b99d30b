"""Text to image and edits."""

import pytest

from .generation_checks import GenerationChecks
from .model_checks import ModelChecks, TracingChecks
from .subjects import drawing_subject


class TestTextToImage(ModelChecks, GenerationChecks):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, compact):
        return drawing_subject(compact)


class TestEdits(ModelChecks, TracingChecks, GenerationChecks):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, compact):
        return drawing_subject(compact, edit=True)
