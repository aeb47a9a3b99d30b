"""What the forward is given: every form that is right gives the same, and what is wrong is one sentence."""

from __future__ import annotations

import pytest
import torch

from showo2.tiny_showo2 import BOS, END, IMAGE, START, image_ids, tiny_showo2

ROW = [BOS, 1, 2, *image_ids(4), 5, 6]
LATENTS, OTHER = (torch.randn(16, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
IDS = torch.tensor([ROW])


@pytest.fixture(scope="module")
def model():
    return tiny_showo2()


def told(model, **changes):
    return model(**{"input_ids": IDS, "image_latents": [LATENTS], "timesteps": [0.5], **changes})


@torch.no_grad()
@pytest.mark.parametrize(
    "same",
    [
        {"image_latents": LATENTS[None]},
        {"image_latents": (LATENTS.double(),)},
        {"timesteps": torch.tensor([0.5], dtype=torch.float64)},
        {"timesteps": [torch.tensor(0.5)]},
        {"attention_mask": torch.ones_like(IDS).bool()},
        {"position_ids": torch.arange(len(ROW))[None]},
    ],
)
def test_every_form_is_the_same(model, same):
    assert torch.equal(told(model, **same).logits, told(model).logits)
    assert torch.equal(told(model, **same).velocities[0], told(model).velocities[0])


@torch.no_grad()
def test_rows_without_images_may_have_empty_lists(model):
    words = torch.tensor([[1, 2, 3]])
    outputs = model(input_ids=words, image_latents=[], timesteps=[], velocity_targets=[], labels=words)
    assert outputs.velocities == [] or outputs.velocities is None
    assert torch.equal(outputs.logits, model(input_ids=words).logits)
    assert model.model.visual_features([]).fused == []
    assert torch.equal(
        model.generate(words, image_latents=[], max_new_tokens=3), model.generate(words, max_new_tokens=3)
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"timesteps": 0.5}, r"`timesteps` of shape \(\)"),
        ({"timesteps": torch.tensor([[0.5]])}, r"`timesteps` of shape \(1, 1\)"),
        ({"timesteps": [500]}, "from 500 to 500, but must be from 0"),
        ({"timesteps": [float("nan")]}, "must be from 0"),
        ({"timesteps": ["a"]}, "are no numbers"),
        ({"timesteps": [0.5, 0.5]}, "1 images, but 2 `timesteps`"),
        ({"image_latents": [[LATENTS]]}, "are a list, but must be a tensor"),
        ({"image_latents": [LATENTS[:8]]}, r"size \(8, 4, 4\)"),
        ({"image_latents": [LATENTS[:, :3]]}, r"size \(16, 3, 4\)"),
        ({"image_latents": None, "timesteps": None}, "1 images in `input_ids`, but 0 `image_latents`"),
        ({"input_ids": IDS[0]}, r"`input_ids` have the type torch.int64 and the shape \(12,\)"),
        ({"input_ids": IDS.float()}, "type torch.float32"),
        ({"attention_mask": torch.ones(1, 3)}, r"`attention_mask` is of shape \(1, 3\), but must be \(1, 12\)"),
        ({"position_ids": torch.arange(12)}, r"`position_ids` are of shape \(12,\)"),
        ({"inputs_embeds": torch.zeros(1, 5, 32)}, "one embedding per id"),
        ({"inputs_embeds": torch.zeros(5, 32)}, r"must be \(B, T, hidden_size\)"),
        ({"labels": IDS[:, :-1]}, r"`labels` are of size \(1, 11\)"),
        ({"velocity_targets": [OTHER], "output_velocities": False}, "leave one of them out"),
        ({"semantic_targets": []}, "0 `semantic_targets`"),
        ({"image_latents": None, "pixel_values": [None]}, "hold a NoneType"),
        ({"image_latents": None, "pixel_values": [torch.zeros(3, 32, 32).byte()]}, "type torch.uint8"),
    ],
)
def test_what_is_wrong_is_said(model, given, message):
    with pytest.raises(ValueError, match=message):
        told(model, **given)


def test_times_of_features_and_of_text_alone(model):
    with pytest.raises(ValueError, match="2 images, but `timesteps` of shape"):
        model.model.visual_features(torch.stack([LATENTS, OTHER]), 0.5)
    with pytest.raises(ValueError, match="0 images, but 1 `timesteps`"):
        model(input_ids=torch.tensor([[1, 2]]), timesteps=[0.5])


@pytest.mark.parametrize("latents", [LATENTS[None], LATENTS[:4]])
def test_only_latents_are_decoded(model, latents):
    with pytest.raises(ValueError, match="Latents for the image codec have the shape"):
        model.decode_latents(latents)


@torch.no_grad()
def test_a_part_of_a_row_has_logits_but_no_velocities(model):
    """Images behind a cache are read as in one piece; the flow head cannot know what was before."""
    whole = told(model)
    cache = model(input_ids=IDS[:, :3], use_cache=True).cache
    rest = told(model, input_ids=IDS[:, 3:], cache=cache)
    torch.testing.assert_close(rest.logits, whole.logits[:, 3:], rtol=0, atol=1e-5)
    assert rest.velocities is None
    cache = model(input_ids=IDS[:, :3], use_cache=True).cache
    with pytest.raises(ValueError, match="Velocities need whole rows"):
        told(model, input_ids=IDS[:, 3:], cache=cache, output_velocities=True)


def test_old_name_of_the_cache(model):
    cache = model(input_ids=IDS[:, :3], use_cache=True).cache
    with pytest.warns(FutureWarning, match="Use `cache` instead"):
        outputs = model(input_ids=torch.tensor([[4]]), past_key_values=cache)
    assert outputs.cache.get_seq_length() == 4


def test_a_loss_of_nothing_is_learned_from(model):
    nothing = torch.full_like(IDS, -100)
    for given in ({"labels": nothing}, {"velocity_targets": [None]}):
        loss = told(model, **given).loss
        assert float(loss) == 0 and loss.requires_grad


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_loss(model, side):
    """Also where the first token of a row is labelled, as in captions: it follows nothing, whatever stands before it."""
    more = [-100] * 3, [9] * 3, [0] * 3
    labels = [-100 if token == IMAGE else token for token in ROW]
    rows = [labels, ROW, [1] * len(ROW)]
    padded = [pad + row if side == "left" else row + pad for pad, row in zip(more, rows, strict=True)]
    alone = told(model, labels=torch.tensor([labels])).loss
    wanted, ids, mask = (torch.tensor([row]) for row in padded)
    assert float(told(model, input_ids=ids, attention_mask=mask, labels=wanted).loss) == pytest.approx(float(alone))


def test_rows_one_after_the_other_learn_what_they_do_alone(model):
    """Packed: the first label of the second row is no continuation of the first row."""
    second = [BOS, 7, START, *[IMAGE] * 5, END, 8]
    ids = torch.tensor([ROW + second])
    positions = torch.tensor([[*range(len(ROW)), *range(len(second))]])
    labels = ids.masked_fill(ids == IMAGE, -100)
    packed = model(
        input_ids=ids, position_ids=positions, image_latents=[LATENTS, OTHER], timesteps=[0.5, 1.0], labels=labels
    )
    alone = [
        model(input_ids=ids[:, part], image_latents=[one], timesteps=[when], labels=labels[:, part])
        for part, one, when in ((slice(len(ROW)), LATENTS, 0.5), (slice(len(ROW), None), OTHER, 1.0))
    ]
    counts = [int((labels[0, part] >= 0).sum()) - 1 for part in (slice(len(ROW)), slice(len(ROW), None))]
    mean = sum(float(one.loss) * count for one, count in zip(alone, counts, strict=True)) / sum(counts)
    assert float(packed.loss) == pytest.approx(mean, rel=1e-5)
