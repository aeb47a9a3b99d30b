"""Videos: positions, logits and answers of stock Qwen2.5-VL with the same weights and the same pixels."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from films import film_frames, write_film
from helpers import picture
from wallaroo_hf.conversion import export_qwen

SMALL = {"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}


@pytest.fixture(scope="module")
def stock(compact, tmp_path_factory):
    source, exported = (tmp_path_factory.mktemp(name) for name in ("wallaroo", "qwen"))
    compact.model.save_pretrained(source)
    compact.processor.save_pretrained(source)
    export_qwen(source, exported / "out")
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(exported / "out").eval()


def _chat(*videos, question="What happens?", images=()):
    content = [{"type": "video", "video": video} for video in videos] + [
        {"type": "image", "image": image} for image in images
    ]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def _prepare(processor, chats, **options):
    return processor.apply_chat_template(
        chats,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True, "videos_kwargs": {"size": SMALL, **options}},
    )


@pytest.fixture
def batch(processor):
    """Two rows of different length: two videos and a picture, and one video."""
    metadata = [{"fps": rate} for rate in (2.0, 3.5, 1.0)]
    chats = [
        _chat(film_frames(5), film_frames(8, 60, 40), images=[picture(1)]),
        _chat(film_frames(6), question="And here?"),
    ]
    return _prepare(processor, chats, video_metadata=metadata)


def test_what_the_processor_gives(processor, batch):
    video = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    lengths = batch["video_grid_thw"].prod(dim=-1) // 4
    assert batch["video_grid_thw"][:, 0].tolist() == [3, 4, 3]
    assert (batch["input_ids"] == video).sum(dim=1).tolist() == [int(lengths[:2].sum()), int(lengths[2])]
    assert torch.equal(batch["mm_token_type_ids"] == 2, batch["input_ids"] == video)
    assert (batch["mm_token_type_ids"] == 1).sum() == batch["image_grid_thw"].prod() // 4
    assert torch.allclose(batch["second_per_grid_ts"], torch.tensor([1.0, 2 / 3.5, 2.0]))
    assert set(batch) <= set(processor.model_input_names)
    moved = batch.to(dtype=torch.bfloat16)
    assert moved["pixel_values_videos"].dtype == torch.bfloat16 and moved["second_per_grid_ts"].dtype == torch.float32


def test_positions_and_logits_are_stock(model, stock, batch):
    given = {
        name: batch[name] for name in ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "attention_mask")
    }
    theirs, deltas = stock.model.get_rope_index(batch["input_ids"], batch["mm_token_type_ids"], **given)
    ours, own_deltas = model.model.get_rope_index(batch["input_ids"], **given)
    seen = batch["attention_mask"].bool().expand_as(theirs)
    assert torch.equal(ours[seen], theirs[seen]) and torch.equal(deltas, own_deltas)
    with torch.no_grad():
        expected, logits = stock(**batch).logits, model(**batch).logits
    real = batch["attention_mask"].bool()
    assert torch.equal(logits[real], expected[real])
    other = {**batch, "second_per_grid_ts": batch["second_per_grid_ts"] * 4}
    with torch.no_grad():
        assert not torch.equal(model(**other).logits[real], logits[real])  # time counts


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"cache_implementation": "static"}, {"use_cache": False}])
def test_answers_are_stock(model, stock, batch, options):
    options = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8, **options}
    assert torch.equal(model.generate(**batch, **options), stock.generate(**batch, **options))


def test_several_answers_of_each(model, batch):
    options = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}
    one = model.generate(**batch, **options)
    two = model.generate(**batch, **options, num_beams=2, num_return_sequences=2)
    assert len(two) == 4 and torch.equal(
        two[:, : batch["input_ids"].shape[1]], batch["input_ids"].repeat_interleave(2, 0)
    )
    assert one.shape == (2, two.shape[1])


def test_rows_alone_and_together(model, processor, batch):
    alone = _prepare(processor, [_chat(film_frames(6), question="And here?")], video_metadata=[{"fps": 1.0}])
    options = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8}
    new = model.generate(**alone, **options)[:, alone["input_ids"].shape[1] :]
    assert torch.equal(model.generate(**batch, **options)[1:, batch["input_ids"].shape[1] :], new)


def test_a_cache_goes_on_behind_a_video(model, batch):
    """The next tokens stand where the whole row would have them."""
    with torch.no_grad():
        whole = model(**batch).logits[:, -1]
        ids = batch.pop("input_ids")
        mask, types = batch.pop("attention_mask"), batch.pop("mm_token_type_ids")
        first = model(
            input_ids=ids[:, :-2],
            attention_mask=mask[:, :-2],
            mm_token_type_ids=types[:, :-2],
            **batch,
            use_cache=True,
        )
        rest = model(input_ids=ids[:, -2:], attention_mask=mask, cache=first.cache).logits[:, -1]
    assert torch.allclose(whole, rest, atol=1e-4)


def test_rows_of_videos_train(model, processor):
    chat = [
        *_chat(film_frames(4), images=[picture(1)]),
        {"role": "assistant", "content": [{"type": "text", "text": "A bar grows."}]},
    ]
    text = processor.apply_chat_template([chat], tokenize=False)
    rows = processor(
        text=text,
        images=[picture(1)],
        videos=[film_frames(4)],
        return_labels=True,
        return_tensors="pt",
        videos_kwargs={"size": SMALL},
    )
    model.train()
    out = model(**rows)
    assert set(out.losses) == {"understanding_text"}
    out.loss.backward()
    assert model.model.visual.patch_embed.proj.weight.grad.abs().sum() > 0
    touched = model(**rows, touch_all_parts=True)
    assert torch.allclose(touched.loss, out.loss, atol=1e-5)


def test_every_process_runs_the_same_parts(model, processor):
    """The vision tower runs once with pictures, with videos, with both and with neither."""
    calls = []
    model.model.visual.register_forward_hook(lambda *_: calls.append(1))
    shown = {"images": [picture(1)], "videos": [film_frames(4)]}
    for names in (("images",), ("videos",), ("images", "videos"), ()):
        chat = _chat(
            *(shown["videos"] if "videos" in names else ()), images=shown["images"] if "images" in names else ()
        )
        text = processor.apply_chat_template([chat], tokenize=False)
        rows = processor(
            text=text, **{name: shown[name] for name in names}, return_tensors="pt", videos_kwargs={"size": SMALL}
        )
        model(**rows, labels=rows["input_ids"], touch_all_parts=True)
    assert len(calls) == 4


def test_what_is_refused(model, processor, batch):
    without = {name: value for name, value in batch.items() if name not in ("pixel_values_videos", "video_grid_thw")}
    for call in (model, model.generate):
        with pytest.raises(ValueError, match="no `video_grid_thw`"):
            call(**without)
        with pytest.raises(ValueError, match=r"needs `video_grid_thw`|no `video_grid_thw`"):
            call(**{name: value for name, value in batch.items() if name != "video_grid_thw"})
    fewer = {
        **batch,
        "pixel_values_videos": batch["pixel_values_videos"][:48],
        "video_grid_thw": batch["video_grid_thw"][:1],
    }
    with pytest.raises(ValueError, match="room for 32 tokens of videos, but `pixel_values_videos` brings 12"):
        model(**fewer)
    with pytest.raises(ValueError, match="more pictures or videos than"):
        model.model.get_rope_index(
            batch["input_ids"], image_grid_thw=batch["image_grid_thw"], video_grid_thw=batch["video_grid_thw"][:1]
        )
    model.config.text_config.max_position_embeddings = 20
    with pytest.raises(ValueError, match="20 positions; shorten it, or show fewer or smaller frames of its video"):
        model.generate(**batch)
    with pytest.raises(ValueError, match="placeholders, but 1 videos were given"):
        processor(text="What?", videos=[film_frames(2)])
    for mode in ("image", "auto"):
        with pytest.raises(ValueError, match="Nothing is drawn from a video"):
            processor(text="What?", videos=[film_frames(2)], generation_mode=mode)


def test_a_film_with_its_rate(model, processor, tmp_path):
    path = write_film(tmp_path / "bar.mp4", film_frames(40), rate=8)
    for video in (str(path), path):
        inputs = _prepare(processor, _chat(video), fps=1.0)
        assert inputs["video_grid_thw"].tolist() == [[2, 4, 4]] and inputs["second_per_grid_ts"].tolist() == [2.5]
    flat = processor.apply_chat_template(
        _chat(str(path)),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"num_frames": 6, "size": SMALL},
    )
    assert flat["video_grid_thw"][0, 0] == 3
    assert model.generate(**inputs, max_new_tokens=3).shape[0] == 1


def test_a_checkpoint_may_say_how_large_frames_are(processor):
    processor.pixel_limits["video"] = {"shortest_edge": 784, "longest_edge": 784}
    text = processor.apply_chat_template(_chat(film_frames(2)), tokenize=False)
    assert processor(text=text, videos=film_frames(2), return_tensors="pt")["video_grid_thw"].tolist() == [[1, 2, 2]]
