"""Other checkpoints of the released layout: converted, then compared with the forward written out in plain words.

That forward (`plain_showo2.py`) is first held against what was recorded from the authors' code.
"""

from __future__ import annotations

import json

import pytest
import torch

from golden_showo2 import last, load_tiny, recorded, recorded_file, vae_file
from showo2.plain_showo2 import IDS, PlainShowO2, Sizes, random_weights, write_checkpoint
from wallaroo_hf.showo2 import convert_showo2

BOS, EOS, START, END, IMAGE, VIDEO, PAD = list(IDS.values())[:7]
VIDEO_START, VIDEO_END = IDS["bov_id"], IDS["eov_id"]
NEVER = sorted(set(IDS.values()) - {BOS, EOS, PAD})  # no answer holds marks of images

LAYOUTS = {
    "untied head": Sizes(tied=False),
    "one kv head in the flow head": Sizes(flow_kv_heads=1, flow_heads=3),
    "one kv head everywhere": Sizes(flow_kv_heads=1, kv_heads=1),
    "a wide grid": Sizes(grid=(3, 5)),
    "a larger grid": Sizes(grid=(6, 6), tied=False),
    "equal widths": Sizes(width=32),
    "equal widths, untied, one kv head, a tall grid": Sizes(
        width=32, tied=False, flow_kv_heads=1, flow_heads=2, flow_layers=1, grid=(5, 2)
    ),
    "deeper, other frequencies": Sizes(layers=3, vision_layers=1, flow_layers=4, frequencies=64, rope_theta=1e4),
}


def noise(height, width, seed, frames=None):
    """Latents of so many tokens."""
    size = (16, 2 * height, 2 * width) if frames is None else (16, frames, 2 * height, 2 * width)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def shown(height, width, frames=1):
    """An image in a prompt."""
    return [START, *[IMAGE] * (frames * height * width + 1), END]


def close(ours, theirs, relative=1e-5):
    """Whether float32 numbers are as near to float64 ones as their scale allows."""
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=relative * max(1.0, float(theirs.abs().max())))


def left_padded(rows, pad=PAD):
    """Rows of ids as a batch."""
    longest = max(map(len, rows))
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda name: name.replace(" ", "-"))
def pair(request, tmp_path_factory):
    """A checkpoint converted, and in plain words."""
    pytest.importorskip("diffusers")
    sizes, folder = LAYOUTS[request.param], tmp_path_factory.mktemp("layout")
    weights = random_weights(sizes)
    sources = write_checkpoint(folder, weights, sizes)
    convert_showo2(vae=vae_file(folder), output=folder / "converted", dtype="float32", **sources)
    return load_tiny(folder / "converted"), PlainShowO2(weights, sizes)


# ----------------------------------------------------------------------------------------- the plain words are the authors'


@pytest.fixture(scope="module")
def recorded_plain():
    file = recorded_file("tiny_a/checkpoint/pytorch_model.bin")
    sizes = Sizes(
        **{"vocabulary": 240, "width": 48, "layers": 3, "mlp": 96, "vision_width": 36, "vision_mlp": 80},
        **{"flow_width": 64, "flow_layers": 3, "flow_head": 16, "flow_mlp": 128, "grid": (5, 5)},
        ids=json.loads((file.parent / "token_ids.json").read_text(encoding="utf-8")),
    )
    return PlainShowO2(torch.load(file, weights_only=True), sizes)


@pytest.mark.parametrize("case", ["velocity", "interp_8x8", "interp_4x7", "video"])
def test_plain_words_are_the_recorded_forward(recorded_plain, case):
    golden = recorded(f"tiny_a/{case}", "v_pred")
    for row, ids in enumerate(golden["text_tokens"].tolist()):
        seen = recorded_plain.row(ids, [golden["latents"][row]], [float(golden["t"][row])])
        logits = last(seen.logits[None], golden["logits"])[0]
        torch.testing.assert_close(logits.float(), golden["logits"][row], rtol=0, atol=2e-5)
        torch.testing.assert_close(seen.velocities[0].float(), golden["v_pred"][row], rtol=0, atol=5e-6)


def test_plain_words_are_the_recorded_sampling(recorded_plain):
    golden = recorded("tiny_a/mixed_generation")
    prompt = golden["text_tokens"][0, : int(golden["modality_positions"][0, 1, 0])].tolist()
    latents, _ = recorded_plain.drawn(prompt, golden["noise"][0], 5.0, 4, history=[golden["history"][0]])
    torch.testing.assert_close(latents.float(), golden["latents"][0], rtol=0, atol=2e-5)


def test_plain_words_are_the_recorded_losses(recorded_plain):
    golden = recorded("tiny_a/train_t2i_caption")
    rows = [
        (ids.tolist(), labels.tolist(), [latents], [float(when)])
        for ids, labels, latents, when in zip(
            *(golden[name] for name in ("text_tokens", "text_labels", "noised_latents", "t")), strict=True
        )
    ]
    text, flow = recorded_plain.losses(rows, [*golden["velocity_target"][:2], None])
    torch.testing.assert_close(text.float(), golden["loss_ntp"], rtol=0, atol=1e-5)
    torch.testing.assert_close(flow.float(), golden["loss_flow"], rtol=0, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ other layouts


@torch.no_grad()
def test_what_was_converted(pair):
    model, plain = pair
    config, sizes = model.config, plain.sizes
    assert config.tie_word_embeddings == sizes.tied
    assert tuple(config.position_grid) == sizes.grid
    assert config.flow_config.num_key_value_heads == sizes.flow_kv_heads
    assert (model.model.time_projection is None) == (sizes.width == sizes.flow_width)
    assert (model.flow_head.input_projection is None) == (sizes.width == sizes.flow_width)


@torch.no_grad()
def test_features(pair):
    model, plain = pair
    latents = [noise(*plain.sizes.grid, 1), noise(3, 4, 2), noise(5, 3, 3), noise(2, 3, 4, frames=2)]
    features = model.model.visual_features(latents, [0.0, 0.2, 1.0, 0.5])
    frames = [[one] if one.dim() == 3 else list(one.transpose(0, 1)) for one in latents]
    for image, own in enumerate(frames):
        theirs = [torch.cat(parts) for parts in zip(*(plain.features(frame) for frame in own), strict=True)]
        for ours, one in zip(features, theirs, strict=True):
            close(ours[image], one)


@torch.no_grad()
def test_rows_of_images_of_several_sizes_and_videos(pair):
    """Padded on either side: three images of two sizes, text alone, a video, a reduced video, one token."""
    model, plain = pair
    latents = [noise(3, 4, 1), noise(2, 2, 2), noise(3, 4, 3), noise(2, 3, 4, frames=3), noise(2, 2, 5, frames=2)]
    times = [1.0, 0.3, 0.0, 0.62, 1.0]
    video = [VIDEO_START, *[VIDEO] * 19, VIDEO_END]
    rows = [
        [BOS, 3, *shown(3, 4), 5, 6, *shown(2, 2), *shown(3, 4), EOS],
        [BOS, 9, 8, 7],
        [BOS, 4, *video, EOS],
        [BOS, *shown(14, 14, 2), 7, 30],
        [11],
    ]
    owned = [latents[:3], [], latents[3:4], latents[4:], []]
    clocks = iter(times)
    theirs = [plain.row(row, own, [next(clocks) for _ in own]) for row, own in zip(rows, owned, strict=True)]
    ids, mask = left_padded(rows)
    flipped = torch.tensor([row + [PAD] * (ids.shape[1] - len(row)) for row in rows])
    for left, given, seen in ((True, ids, mask), (False, flipped, mask.flip(1)), (False, flipped, None)):
        outputs = model(input_ids=given, attention_mask=seen, image_latents=latents, timesteps=times)
        velocities = iter(outputs.velocities)
        for number, (row, their) in enumerate(zip(rows, theirs, strict=True)):
            part = slice(-len(row), None) if left else slice(len(row))
            close(outputs.logits[number, part], their.logits)
            close(outputs.last_hidden_state[number, part], their.hidden)
            for velocity in their.velocities:
                ours = next(velocities)
                assert (ours is None) == (velocity is None)
                if velocity is not None:
                    close(ours, velocity)


@torch.no_grad()
def test_losses(pair):
    model, plain = pair
    ids = [
        [BOS, 3, 4, *shown(3, 4), EOS],
        [BOS, *shown(2, 2), 7, 8, 9, EOS],
        [BOS, 2, *shown(2, 2), 5, *shown(3, 4), EOS],
    ]
    clean = [noise(3, 4, 1), noise(2, 2, 2), noise(2, 2, 3), noise(3, 4, 4)]
    start = [noise(3, 4, 5), noise(2, 2, 6), noise(2, 2, 7), noise(3, 4, 8)]
    times = [0.25, 1.0, 1.0, 0.7]
    latents = [when * one + (1 - when) * of for when, one, of in zip(times, clean, start, strict=True)]
    targets = [clean[0] - start[0], None, None, clean[3] - start[3]]
    labels = [[-100 if token == IMAGE or row == 0 else token for token in own] for row, own in enumerate(ids)]
    rows = list(
        zip(ids, labels, [latents[:1], latents[1:2], latents[2:]], [times[:1], times[1:2], times[2:]], strict=True)
    )
    text, flow = plain.losses(rows, targets)
    padded, mask = left_padded(ids)
    wanted, _ = left_padded(labels, -100)
    outputs = model(
        input_ids=padded,
        attention_mask=mask,
        labels=wanted,
        image_latents=latents,
        timesteps=times,
        velocity_targets=targets,
        text_weight=0.2,
    )
    close(outputs.loss, 0.2 * text + flow)
    close(outputs.losses["generation_image"], flow)
    counts = {name: sum(one >= 0 for row in chosen for one in labels[row][1:]) for name, chosen in _KINDS.items()}
    mean = sum(outputs.losses[name] * count for name, count in counts.items()) / sum(counts.values())
    close(mean, text)


_KINDS = {"understanding_text": (1,), "generation_text": (0, 2)}  # rows of the test above


@torch.no_grad()
@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_drawing(pair, guidance):
    """Prompts of different lengths and images of different sizes in one batch, one with its own null prompt."""
    model, plain = pair
    prompts = [[BOS, 3, 4, 5, START], [BOS, START], [BOS, *range(1, 12), START]]
    nulls = [[BOS, START], [BOS, 40, 41, START], [BOS, START]]
    begin = [noise(3, 4, 1), noise(2, 2, 2), noise(3, 4, 3)]
    ids, mask = left_padded(prompts)
    null_ids, null_mask = left_padded(nulls)
    outputs = model.generate(
        input_ids=ids,
        attention_mask=mask,
        negative_input_ids=null_ids,
        negative_attention_mask=null_mask,
        generation_mode="image",
        noise=begin,
        num_inference_steps=4,
        guidance_scale=guidance,
        return_dict_in_generate=True,
    )
    for image, (prompt, null, one) in enumerate(zip(prompts, nulls, begin, strict=True)):
        latents, velocities = plain.drawn(prompt, one, guidance, 4, null)
        for step, velocity in enumerate(velocities):
            close(outputs.velocities[step][image], velocity, 2e-5)
        close(outputs.latents[image], latents, 2e-5)


@torch.no_grad()
def test_answers_with_and_without_cache(pair):
    model, plain = pair
    latents = [noise(3, 4, 1), noise(2, 2, 2), noise(2, 2, 3, frames=2)]
    prompts = [[BOS, 5, *shown(3, 4), 6, *shown(2, 2), 7], [BOS, 9, 8], [BOS, *shown(14, 14, 2), 4, 4]]
    theirs = [
        plain.answered(prompt, own, 5, NEVER)
        for prompt, own in zip(prompts, (latents[:2], [], latents[2:]), strict=True)
    ]
    ids, mask = left_padded(prompts)
    for use_cache in (True, False):
        ours = model.generate(
            input_ids=ids, attention_mask=mask, image_latents=latents, max_new_tokens=5, use_cache=use_cache
        )
        for row, their in enumerate(theirs):
            assert ours[row, ids.shape[1] :][: len(their)].tolist() == their


@torch.no_grad()
def test_mixed_generation(pair):
    """The row opens an image at once; it is drawn behind an image of the prompt, then words follow, of both images."""
    model, plain = pair
    history, seed = noise(2, 2, 2), 3
    prompt = [BOS, 5, *shown(2, 2), 6, 7, START]
    outputs = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        image_latents=[history],
        image_size=torch.tensor([[48, 64]]),
        generation_mode="auto",
        generator=torch.Generator().manual_seed(seed),
        num_inference_steps=3,
        guidance_scale=2.5,
        max_new_tokens=4,
        suppress_tokens=[START],
    )
    begin = torch.randn(16, 6, 8, generator=torch.Generator().manual_seed(seed))
    latents, _ = plain.drawn(prompt, begin, 2.5, 3, history=[history])
    close(outputs.latents[0][0], latents, 2e-5)
    told = [*prompt, *shown(3, 4)[1:]]
    words = plain.answered(told, [history, outputs.latents[0][0]], 4, [*NEVER, START])
    assert outputs.sequences[0, : len(told) + len(words)].tolist() == [*told, *words]


@torch.no_grad()
def test_one_image_alone_is_the_same_in_bfloat16_folders(pair, tmp_path):
    """Saved and loaded again in a smaller type: nothing is missing, the head stays what it is."""
    model, plain = pair
    model.save_pretrained(tmp_path)
    again = load_tiny(tmp_path, dtype=torch.bfloat16)
    assert again.lm_head.weight.dtype == torch.bfloat16 and next(again.vae.parameters()).dtype == torch.float32
    tied = again.lm_head.weight.data_ptr() == again.get_input_embeddings().weight.data_ptr()
    assert tied == plain.sizes.tied
    theirs = {name: one.bfloat16() for name, one in model.state_dict().items() if not name.startswith("vae.")}
    ours = again.state_dict()
    assert all(torch.equal(ours[name], one) for name, one in theirs.items())
