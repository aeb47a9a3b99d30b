"""The benchmark of drawing runs, compares equals, and counts right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "decode.py"


def test_micro_preset(tmp_path):
    output = tmp_path / "decode.json"
    command = [sys.executable, str(SCRIPT), "--preset", "micro", "--rounds", "1", "--images", "1", "2"]
    command += ["--codes-per-forward", "4=2"]
    result = subprocess.run([*command, "--output", str(output)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["agreement"]["attend_padding"] == report["agreement"]["masked_padding"] == 1
    ours, released = report["counts"]["ours"], report["counts"]["released"]
    assert (ours["codes"], ours["forwards"], ours["text_head_calls"]) == (24, 24, 0)
    assert (released["codes"], released["forwards"], released["text_head_calls"]) == (24, 27, 27)
    assert set(report["steps"]) == {"1_images.context_20", "2_images.context_20", "1_images.context_40"}
    variants = {"ours", "ours_static", "released", "janus", "products"}
    assert set(report["steps"]["1_images.context_20"]["ms_per_step"]) == variants
    assert report["agreement"]["masked_padding_ours_static"] == 1
    for case in report["windows"].values():
        assert set(case["ms_per_forward"]) == {"1", "4"} and set(case["cost_over_one_code"]) == {"4"}
    four = report["windows"]["2_images"]
    expected = 24 / 2 * four["ms_per_forward"]["4"]["median"] / 1e3 / 2
    assert four["computed_seconds_per_image"] == {"4": pytest.approx(expected, abs=1e-4)}
    assert all(value > 0 for value in report["ratios"].values())
