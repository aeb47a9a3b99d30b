"""Training the image tokenizer: what the losses move, what a codebook needs, and that a stop changes nothing."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch.nn import functional as F
from typer.testing import CliRunner

from helpers import picture
from wallaroo_hf import WallarooVQConfig, WallarooVQModel
from wallaroo_hf.cli.train_vq import train_vq
from wallaroo_hf.scenes.render import tile
from wallaroo_hf.scenes.shapes import SLOT
from wallaroo_hf.training.vq import vq_checkpoints
from wallaroo_hf.training.vq.vq_checkpoints import newest_checkpoint
from wallaroo_hf.training.vq.vq_codebook import crowded_codes, restart_latents, spherical_kmeans
from wallaroo_hf.training.vq.vq_data import image_files, random_crops, scene_canvases
from wallaroo_hf.training.vq.vq_losses import code_entropy, locality_loss, shuffle_tiles, vq_pass
from wallaroo_hf.training.vq.vq_recipe import scenes_arguments, small_tokenizer_config
from wallaroo_hf.training.vq.vq_report import read_log
from wallaroo_hf.training.vq.vq_training import VQTrainer, VQTrainingArguments, new_tokenizer

CONFIG = WallarooVQConfig(
    codebook_size=32,
    base_channels=32,
    channel_multiplier=[1, 1],
    num_res_blocks=1,
    latent_channels=16,
    norm_num_groups=4,
)
QUICK = VQTrainingArguments(
    max_steps=8, continuous_steps=3, restart_interval=2, kmeans_latents=4, warmup_steps=2, log_interval=1
)


def noise(generator):
    """Two 8x8 images of coloured squares: 4x4 tokens each."""
    return F.interpolate(torch.rand(2, 3, 4, 4, generator=generator) * 2 - 1, scale_factor=2)


def trainer(folder, arguments=QUICK, images=noise, seed=0):
    return VQTrainer(new_tokenizer(CONFIG, seed), arguments, images, folder)


def weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


class TestLosses:
    def test_straight_through(self):
        """The pixels' gradient reaches the encoder past the codes, and the codebook not at all."""
        model = new_tokenizer(CONFIG)
        passed = vq_pass(model, noise(torch.Generator().manual_seed(0)))
        assert passed.reconstruction.shape == (2, 3, 8, 8)
        assert passed.latents.shape == passed.vectors.shape == (2, 4, 4, 8) and passed.codes.shape == (2, 4, 4)
        torch.testing.assert_close(passed.vectors, model.codebook_lookup(passed.codes))
        torch.testing.assert_close(passed.reconstruction, model.decode(passed.codes))
        passed.reconstruction.square().mean().backward()
        assert model.encoder.conv_in.weight.grad.abs().max() > 0
        assert model.quantize.embedding.weight.grad is None

    def test_each_loss_moves_its_own_side(self, tmp_path):
        arguments = replace(QUICK, continuous_steps=0, entropy_weight=0.1)
        training = trainer(tmp_path, arguments)
        pixel_values = noise(torch.Generator().manual_seed(0))
        for name, codebook_moves in (("codebook_loss", True), ("commitment_loss", False)):
            training.model.zero_grad()
            passed = vq_pass(training.model, pixel_values)
            losses = training._losses(passed, pixel_values, None, quantise=True)
            losses[name].backward()
            assert (training.model.quantize.embedding.weight.grad is not None) == codebook_moves
            assert (training.model.quant_conv.weight.grad is None) == codebook_moves
        squared = (passed.latents - passed.vectors).square().mean()
        torch.testing.assert_close(losses["codebook_loss"], squared)
        expected = losses["reconstruction_loss"] + 1.25 * squared + 0.1 * losses["entropy_loss"]
        torch.testing.assert_close(losses["loss"], expected)

    def test_entropy(self):
        """Sure of all codes alike is the best there is; all on one code, or between two, is worse."""
        codebook = torch.eye(8)
        assert code_entropy(codebook, codebook).item() == pytest.approx(-np.log(8), abs=1e-4)
        assert code_entropy(codebook[:1].expand(8, 8), codebook).item() == pytest.approx(0, abs=1e-4)
        between = F.normalize(codebook[:1] + codebook[1:2], dim=-1)
        assert code_entropy(between, codebook[:2]).item() == pytest.approx(0, abs=1e-4)

    def test_locality(self):
        """Latents that follow their tiles cost nothing; others do."""
        grid = torch.rand(3, 2, 8, 4)
        shuffled, order = shuffle_tiles(grid, 2, torch.Generator().manual_seed(1))
        assert not torch.equal(grid, shuffled)
        assert sorted(map(tuple, order.sort(dim=1).values.tolist())) == [tuple(range(8))] * 3
        corners = [grid[0, :, y : y + 2, x : x + 2] for y in range(0, 8, 2) for x in range(0, 4, 2)]
        assert torch.equal(shuffled[0, :, 2:4, 2:4], corners[order[0, 3]])
        last = grid.permute(0, 2, 3, 1), shuffled.permute(0, 2, 3, 1)
        assert locality_loss(*last, order, 2) == 0 and locality_loss(*last, order.flip(1), 2) > 0
        with pytest.raises(ValueError, match=r"8x4 .* tiles of 3 pixels"):
            shuffle_tiles(grid, 3, torch.Generator())


class TestCodebook:
    def test_kmeans_finds_clusters(self):
        generator = torch.Generator().manual_seed(0)
        centres = F.normalize(torch.randn(12, 8, generator=generator), dim=-1)
        points = centres.repeat(30, 1) + 0.02 * torch.randn(360, 8, generator=generator)
        found = spherical_kmeans(F.normalize(points, dim=-1), 12, 5, generator)
        assert (centres @ found.T).max(dim=1).values.min() > 0.999
        assert len((centres @ found.T).argmax(dim=1).unique()) == 12
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(12))

    def test_more_codes_than_latents(self):
        found = spherical_kmeans(torch.eye(8)[:3], 6, 3, torch.Generator().manual_seed(0))
        assert found.unique(dim=0).shape[0] == 3 and torch.isfinite(found).all()

    def test_restarts_go_where_the_error_is(self):
        latents, codes = torch.eye(8), torch.eye(8)
        codes[5] = codes[0]
        for wanted in (1, 4):
            places = restart_latents(latents, codes, wanted, 0.0, torch.Generator().manual_seed(0))
            assert torch.equal(places, latents[5:6])
        assert len(restart_latents(latents, codes, 4, 1.5, torch.Generator())) == 0  # sqrt(2) is near enough

    def test_crowded_codes(self):
        """Three in a row, each near the next: the middle one, used most, stays alone; zero vectors do not count."""
        angles = torch.tensor([0.0, 0.1, 0.2, 1.0])
        codes = torch.cat([torch.stack([angles.cos(), angles.sin()], dim=1), torch.zeros(2, 2)])
        uses = torch.tensor([3, 9, 4, 1, 0, 0])
        assert crowded_codes(codes, uses, 0.15).tolist() == [True, False, True, False, False, False]
        assert crowded_codes(codes, uses.flip(0), 0.15).tolist() == [False, True, False, False, False, False]
        assert not crowded_codes(codes, uses, 0.05).any()

    def test_doubles_are_taken_out(self, tmp_path):
        arguments = replace(QUICK, continuous_steps=0, max_steps=100, min_code_distance=0.9)
        training = trainer(tmp_path, arguments)
        for _ in range(2):
            training.train_step()
        codes = training.model.codebook_lookup(torch.arange(32))
        alive = codes[codes.norm(dim=-1) > 0]
        apart = torch.cdist(alive, alive) + torch.eye(len(alive))
        assert 1 < len(alive) < 32 and apart.min() >= 0.899
        with torch.no_grad():
            tokens = training.model.encode(noise(torch.Generator().manual_seed(3))).image_tokens
        assert (codes[tokens].norm(dim=-1) > 0.99).all()

    def test_codebook_appears_after_the_warm_up(self, tmp_path):
        training = trainer(tmp_path)
        first = weights(training.model)
        for _ in range(QUICK.continuous_steps):
            losses = training.train_step()
        now = weights(training.model)
        assert "codebook_loss" not in losses and torch.equal(
            first["quantize.embedding.weight"], now["quantize.embedding.weight"]
        )
        changed = {name.split(".")[0] for name in now if not torch.equal(first[name], now[name])}
        assert changed == {"encoder", "quant_conv", "post_quant_conv", "decoder"}
        losses = training.train_step()
        after = training.model.quantize.embedding.weight
        assert losses["codebook_loss"] > 0 and losses["codes_used"] > 5
        torch.testing.assert_close(after.norm(dim=-1), torch.ones(32), atol=0.1, rtol=0)  # k-means, then one step

    def test_dead_codes_come_back(self, tmp_path):
        """All codes but one far from every latent: after the next restart many are used."""
        training = trainer(tmp_path, replace(QUICK, continuous_steps=0, max_steps=100, restart_interval=4))
        for _ in range(4):
            training.train_step()
        with torch.no_grad():
            latents = training.model.encode(noise(torch.Generator().manual_seed(0))).latents
            middle = F.normalize(latents.mean(dim=(0, 1, 2)), dim=0)
            training.model.quantize.embedding.weight.copy_(-middle.expand(32, -1))
            training.model.quantize.embedding.weight[7] = middle
        used = [training.train_step()["codes_used"] for _ in range(8)]
        assert used[3] < 0.5 * used[7], used


class TestTrainer:
    def test_overfits_a_few_pictures(self, tmp_path):
        images = noise(torch.Generator().manual_seed(5))
        arguments = replace(
            QUICK, max_steps=60, continuous_steps=30, learning_rate=5e-3, restart_interval=10, kmeans_latents=1
        )
        training = trainer(tmp_path, arguments, lambda generator: images)
        losses = []
        final = training.train(on_step=lambda step, named: losses.append(named["reconstruction_loss"]))
        assert losses[-1] < 0.1 * losses[0]
        saved = WallarooVQModel.from_pretrained(final)
        with torch.no_grad():
            decoded = saved.decode(saved.encode(images).image_tokens)
        assert F.mse_loss(decoded, images) < 0.1 * images.var()
        assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == list(range(1, 61))

    @pytest.mark.parametrize("stop", [2, 3, 5])
    def test_resumed_run_equals_one_that_was_not_stopped(self, tmp_path, stop):
        whole = trainer(tmp_path / "whole", replace(QUICK, locality_weight=0.5, locality_tile=4))
        whole.train()
        halted = trainer(tmp_path / "halted", whole.arguments)
        (tmp_path / "halted").mkdir()
        while halted.step < stop:
            halted.train_step()
        halted.save()
        halted.train_step()  # done, logged or not, but not saved
        again = trainer(tmp_path / "halted", whole.arguments, seed=1)
        steps = []
        again.train(resume=True, on_step=lambda step, losses: steps.append(step))
        assert steps == list(range(stop + 1, 9))
        assert equal(weights(whole.model), weights(again.model))

    def test_time_limit(self, tmp_path):
        limited = trainer(tmp_path, replace(QUICK, max_minutes=0.0))
        assert limited.train() is None and limited.step == 1
        assert newest_checkpoint(tmp_path).name == "checkpoint-1" and list((tmp_path / "previews").iterdir())
        rest = trainer(tmp_path)
        assert rest.train(resume=True) == tmp_path / "final"
        assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == list(range(1, 9))
        assert trainer(tmp_path).train(resume=True) == tmp_path / "final"  # nothing left to do

    def test_killed_while_saving(self, tmp_path, monkeypatch):
        """Whatever was being written, the checkpoint before it is the newest, and it goes on from there."""
        training = trainer(tmp_path)
        training.train_step()
        training.save()
        training.train_step()
        calls = []

        def dies(tensors, path):
            calls.append(path)
            path.write_bytes(b"half of it")
            if len(calls) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(vq_checkpoints, "save_file", dies)
        with pytest.raises(KeyboardInterrupt):
            training.save()
        monkeypatch.undo()
        assert len(calls) == 2 and newest_checkpoint(tmp_path).name == "checkpoint-1"
        killed = tmp_path / ".checkpoint-2-partial-x"  # what kill -9 leaves
        killed.mkdir()
        (killed / "model.safetensors").write_bytes(b"half of it")
        trainer(tmp_path).train(resume=True)
        assert not killed.exists() and newest_checkpoint(tmp_path).name == "checkpoint-8"

    def test_keeps_the_newest_checkpoints(self, tmp_path):
        trainer(tmp_path, replace(QUICK, save_minutes=0.0)).train()
        assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-7", "checkpoint-8"]

    def test_log_is_rewound(self, tmp_path):
        training = trainer(tmp_path)
        training.train_step()
        training.save()
        log = tmp_path / "log.jsonl"
        log.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 9.0}\n{"step": 3, "lo', encoding="utf-8")
        training.train(resume=True)
        assert [record["step"] for record in read_log(log)] == list(
            range(1, 9)
        ) and '"loss": 9.0' not in log.read_text()

    def test_plot_and_preview(self, tmp_path):
        pytest.importorskip("matplotlib")
        training = trainer(tmp_path)
        with pytest.raises(ValueError, match="Nothing was logged"):
            training.plot()
        training.train()
        assert Image.open(training.plot()).width > 500
        assert Image.open(training.preview()).size == (2 * 8 + 3 * 4, 2 * 8 + 3 * 4)

    def test_all_by_adamw(self, tmp_path):
        arguments = replace(QUICK, use_muon=False)
        training = trainer(tmp_path, arguments)
        before = weights(training.model)
        training.train()
        assert not equal(before, weights(training.model))

    def test_refusals(self, tmp_path):
        for wrong in ({"reconstruction": "l3"}, {"max_steps": 0}, {"learning_rate": -1.0}):
            with pytest.raises(ValueError, match="give"):
                replace(QUICK, **wrong)
        with pytest.raises(ValueError, match="`locality_tile` is 3, but a code has 2 pixels"):
            trainer(tmp_path, replace(QUICK, locality_weight=1.0, locality_tile=3))
        training = trainer(tmp_path)
        training.train_step()
        training.save()
        with pytest.raises(ValueError, match=r"holds a training run \(checkpoint-1\)"):
            training.train()
        with pytest.raises(ValueError, match="`seed` 0, not 3"):
            trainer(tmp_path, replace(QUICK, seed=3)).train(resume=True)
        other = VQTrainer(new_tokenizer(replace_config(codebook_size=16)), QUICK, noise, tmp_path)
        with pytest.raises(ValueError, match="`codebook_size` is 32, not 16"):
            other.train(resume=True)


def replace_config(**changes):
    return WallarooVQConfig(**{**CONFIG.to_dict(), **changes})


class TestImages:
    def test_crops(self, tmp_path):
        for index in range(3):
            picture(index, 40 + 8 * index, 20).save(tmp_path / f"{index}.png")
        (tmp_path / "notes.txt").write_text("not an image")
        files = image_files(tmp_path)
        assert [path.name for path in files] == ["0.png", "1.png", "2.png"]
        source = random_crops(files, 24, 4)  # higher than the images: they are enlarged
        batch = source(torch.Generator().manual_seed(0))
        assert batch.shape == (4, 3, 24, 24) and batch.dtype == torch.float32
        assert batch.min() >= -1 and batch.max() <= 1 and batch.std() > 0.1
        assert torch.equal(batch, source(torch.Generator().manual_seed(0)))
        assert not torch.equal(batch, source(torch.Generator().manual_seed(1)))

    def test_crops_are_parts_of_the_image(self):
        pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        crop = random_crops([Image.fromarray(pixels)], 4, 1)(torch.Generator().manual_seed(0))[0]
        crop = ((crop + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        windows = [pixels[y : y + 4, x : x + 4] for y in range(6) for x in range(8)]
        assert any(np.array_equal(crop, w) or np.array_equal(crop, w[:, ::-1]) for w in windows)

    def test_scene_canvases_are_rendered_slots(self):
        source, generator = scene_canvases(3), torch.Generator().manual_seed(0)
        every = {tile(shape, colour, "grey").tobytes() for shape in ("star", "heart") for colour in ("red", "cyan")}
        seen, sizes = set(), set()
        for _ in range(40):
            batch = ((source(generator) + 1) * 127.5).round().byte()
            sizes.add(tuple(batch.shape[2:]))
            slots = (
                batch.unfold(2, SLOT, SLOT).unfold(3, SLOT, SLOT).permute(0, 2, 3, 4, 5, 1).reshape(-1, SLOT, SLOT, 3)
            )
            seen |= {slot.numpy().tobytes() for slot in slots}
        assert sizes == {(64, 64), (96, 96), (64, 128), (128, 64)}
        assert seen & every and len(seen) <= 4 * 65

    def test_refusals(self, tmp_path):
        with pytest.raises(ValueError, match="holds no PNG"):
            image_files(tmp_path)
        with pytest.raises(ValueError, match="is no folder"):
            image_files(tmp_path / "missing")
        with pytest.raises(ValueError, match="at least one"):
            random_crops([], 16, 1)
        (tmp_path / "broken.png").write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"broken\.png.* could not be read"):
            random_crops(image_files(tmp_path), 16, 1)(torch.Generator())


def test_small_tokenizer():
    """The built-in checkpoint's: f16, at most 4.5 MB, and its recipe says how it is trained."""
    model = new_tokenizer(small_tokenizer_config())
    assert model.config.image_token_size == 16
    assert 4 * sum(weight.numel() for weight in model.parameters()) < 4.5e6
    assert scenes_arguments().locality_weight > 0
    state = torch.get_rng_state()
    again = new_tokenizer(small_tokenizer_config())
    assert equal(weights(model), weights(again)) and torch.equal(state, torch.get_rng_state())


def test_command(tmp_path):
    """From a folder of images to a tokenizer, in two sittings; the command says where things are."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(2):
        picture(random.Random(index).randrange(100), 32, 32).save(images / f"{index}.png")
    CONFIG.save_pretrained(tmp_path)
    app = typer.Typer()
    app.command()(train_vq)
    common = ["--images", str(images), "--output", str(tmp_path / "run"), "--steps", "3", "--batch-size", "2"]
    common += ["--image-size", "8", "--config", str(tmp_path / "config.json"), "--device", "cpu"]
    first = CliRunner().invoke(app, [*common, "--minutes", "0"], catch_exceptions=False)
    assert "Stopped after step 1 of 3; go on with --resume." in first.output
    second = CliRunner().invoke(app, [*common, "--resume"], catch_exceptions=False)
    assert "Tokenizer:" in second.output
    assert WallarooVQModel.from_pretrained(tmp_path / "run" / "final").config.norm_num_groups == 4
    assert json.loads((tmp_path / "run" / "checkpoint-3" / "trainer_state.json").read_text())["step"] == 3
    wrong = CliRunner().invoke(app, [*common[:-2], "--device", "moon"])
    assert isinstance(wrong.exception, ValueError) and "'moon' cannot be used" in str(wrong.exception)
