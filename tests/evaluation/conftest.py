"""The examinee that knows everything."""

from __future__ import annotations

import pytest

from examinees import Examinee


@pytest.fixture
def examinee(monkeypatch):
    """Takes the model's place in evaluations of the test."""
    return Examinee(monkeypatch)
