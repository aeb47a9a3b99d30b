"""HieraQuery's rows and controls: what each is, and a step of each through the package's own trainer."""

from __future__ import annotations

import math

import pytest
import torch

from small_hieraquery import save_hieraquery
from wallaroo_hf.evaluation.family_ablations import FamilySettings, run_family_ablation
from wallaroo_hf.families.registry import FAMILIES
from wallaroo_hf.files.built_in import FOLDER
from wallaroo_hf.hieraquery.training import hieraquery_ablation
from wallaroo_hf.hieraquery.training.hieraquery_ablation import ABLATION

FAMILY = FAMILIES["hieraquery"]
QUERIES = {  # groups in the order in which they stand
    **{"single-256": [16], "single-336": [21], "+M": [1, 4, 16], "+M+A": [1, 4, 16]},
    **{"272": [1, 16], "272+A": [1, 16], "320": [4, 16], "320+A": [4, 16], "512": [2, 6, 24], "1024": [3, 12, 48]},
    **{"C1": [21], "C2": [1, 4, 16], "C3": [16], "C4": [16], "C5": [16, 4, 1], "C6": [1, 4, 16], "C7": [1, 4, 16]},
    "C7-single": [16],
}
SUPERVISED = {"C2": [1.0], "C1": [0.25, 0.5, 1.0], "272": [0.25, 1.0], "320": [0.5, 1.0], "single-336": [1.0]}


@pytest.fixture(scope="module", autouse=True)
def few_weights():
    """The small model's layers, fewer and thinner."""
    few = {"width": 32, "num_layers": 3, "num_heads": 2, "condition_size": 32, "num_connector_layers": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hieraquery_ablation, "_MODEL", few)
        yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return ABLATION.open(str(FOLDER), tmp_path_factory.mktemp("ablation"))


def _start(parts, name, seed=0):
    model, processor = ABLATION.start(parts, name, seed)
    batch = processor(text=["a red star"], generation_mode="image", height=64, width=64, return_tensors="pt")
    return model, processor, batch


def test_all_rows_and_controls_are_there():
    assert list(ABLATION.variants) == list(QUERIES)
    for claim in ABLATION.claims:
        assert {claim.better, claim.worse} <= set(QUERIES)
    # a sixteenth of the paper's queries, but for what a grid cannot be
    for name, paper in (
        ("single-256", 256),
        ("single-336", 336),
        ("272", 272),
        ("320", 320),
        ("512", 512),
        ("1024", 1008),
    ):
        assert sum(QUERIES[name]) == paper / 16
    lengths = {name: variant.length for name, variant in ABLATION.variants.items() if variant.length != 1}
    assert lengths == {"C3": pytest.approx(1 + 1 / 4 + 1 / 16)}, "what +M computes beside single-256"


@pytest.mark.parametrize("name", QUERIES)
def test_what_each_is(parts, name):
    model, _, batch = _start(parts, name)
    assert model.config.num_queries == QUERIES[name] and model.config.size == [64, 64]
    assert (model.alignment is not None) == (name.endswith("+A") or name == "C4")
    trained = [scale["factor"] for scale in model.config.scales if scale["loss_weight"] > 0]
    default = [1.0] if trained == [1.0] else [0.25, 0.5, 1.0]
    assert trained == SUPERVISED.get(name.removesuffix("+A"), default)
    drawn = ABLATION.draw(model, batch, [torch.Generator().manual_seed(1)])
    edges = [int(64 * factor) for factor in trained]
    assert [tuple(one.shape) for one in drawn[0]] == [(3, edge, edge) for edge in edges]
    alone = model.draw(batch, generators=[torch.Generator().manual_seed(1)]).pixels[0]
    torch.testing.assert_close(drawn[0][-1], alone, rtol=0, atol=1e-5)


def test_controls_are_conditioned_as_they_say(parts):
    counts = {"C1": [21, 21, 21], "C6": [1, 5, 21], "C5": [1, 4, 16], "+M": [1, 4, 16]}
    for name, expected in counts.items():
        model, _, batch = _start(parts, name)
        batch.pop("image_size")
        with torch.no_grad():
            assert [one.shape[1] for one in model.conditions(**batch)] == expected, name


def test_a_random_language_model_is_random_by_seed_and_nothing_else_is(parts):
    known, random, again, other = (_start(parts, *one)[0] for one in (("+M", 1), ("C7", 1), ("C7", 1), ("C7", 2)))
    for name, tensor in known.state_dict().items():
        is_language = name.startswith("mllm.model.language_model.")
        assert torch.equal(random.state_dict()[name], again.state_dict()[name]), name
        if is_language and tensor.dim() > 1:
            assert not torch.equal(random.state_dict()[name], tensor), name
            assert not torch.equal(random.state_dict()[name], other.state_dict()[name]), name
        elif not is_language and not name.startswith(("queries.", "mllm.lm_head.")):
            assert torch.equal(random.state_dict()[name], tensor), name
    words = random.mllm.model.language_model.embed_tokens.weight
    assert random.config.query_std == pytest.approx(float(words.detach().std()), rel=1e-4)
    assert float(random.queries.queries[2].detach().std()) == pytest.approx(random.config.query_std, rel=0.1)
    assert not any(parameter.requires_grad for parameter in random.mllm.parameters())


def test_a_step_of_every_variant(tmp_path):
    settings = FamilySettings(steps=1, seeds=1, batch_size=2, judged=2)
    found = run_family_ablation(FAMILY, tmp_path, str(FOLDER), settings, "cpu")
    assert list(found.runs) == list(QUERIES)
    losses = {}
    for name, (run,) in found.runs.items():
        assert run["steps"] == 1 and math.isfinite(run["losses"]["loss"]), name
        losses[name] = run["losses"]["loss"]
        coarse = {key for key in run["values"] if key.startswith("agreement")}
        trained = SUPERVISED.get(name.removesuffix("+A"), [0.25, 0.5, 1.0] if len(QUERIES[name]) == 3 else [1.0])
        assert coarse == {f"agreement {factor:g}" for factor in trained[:-1]}, name
    # C3 trains as single-256 does, only longer; of all others every one computes something else
    assert losses.pop("C3") == losses["single-256"]
    assert len(set(losses.values())) == len(losses)
    assert found.to_dict()["family"] == "HieraQuery" and not list(tmp_path.glob(".base-*"))


def test_what_it_cannot_be_built_on_is_one_sentence(tmp_path):
    folder = save_hieraquery(tmp_path / "hieraquery")
    with pytest.raises(
        ValueError, match="is a HieraQuery checkpoint, which has no language model and image tokenizer"
    ):
        run_family_ablation(FAMILY, tmp_path / "out", str(folder), FamilySettings(seeds=1), "cpu")
    assert not (tmp_path / "out" / "runs").exists()
