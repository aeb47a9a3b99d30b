"""The official OpenAI client, unchanged, against the server."""

from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageChops
from transformers import LogitsProcessorList

from helpers import generators, picture
from running_server import data_uri, picture_in, png
from wallaroo_hf import WallarooForConditionalGeneration, WallarooPipeline

openai = pytest.importorskip("openai", reason="the client needs openai: pip install openai")


@pytest.fixture(scope="module")
def pipe(compact, small_processor):
    return WallarooPipeline(model=compact.model, processor=small_processor, device="cpu")


def _chat(*words, image=None, role="user"):
    content = [{"type": "text", "text": word} for word in words]
    if image is not None:
        content.insert(0, {"type": "image_url", "image_url": {"url": data_uri(png(image))}})
    return {"role": role, "content": content}


@pytest.fixture
def likes_to_draw(monkeypatch, compact):
    """Makes the tiny model begin an image as its second word, which it would not do by itself."""
    start = compact.model.config.generate_start_token_id
    original = WallarooForConditionalGeneration._get_logits_processor

    def wanting(self, generation_config, *args, **kwargs):
        processors = original(self, generation_config, *args, **kwargs)
        if generation_config.eos_token_id is None:
            return processors  # a drawing segment
        said = []

        def want(input_ids, scores):
            said.append(1)
            return scores.index_fill(1, torch.tensor([start]), 1e4 if len(said) == 2 else -1e4)

        return LogitsProcessorList([want, *processors])

    monkeypatch.setattr(WallarooForConditionalGeneration, "_get_logits_processor", wanting)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        client.models.retrieve("gpt-4/o")


def test_windows_are_invisible(serve, client):
    """A server that decides several codes per forward sends the same picture; with no real window it does not start."""
    asked = {"model": "tiny", "prompt": "a cat", "size": "64x32", "extra_body": {"seed": 5}}
    plain = client.images.generate(**asked).data[0].b64_json
    with serve(window=4) as running, openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as other:
        assert other.images.generate(**asked).data[0].b64_json == plain
        assert running.service.engine.window == 4
    with pytest.raises(ValueError, match="window"), serve(window="lots"):
        pass


def test_draws_what_the_pipeline_draws(client, pipe):
    """Width comes first in OpenAI's sizes; image k has seed + k."""
    answer = client.images.generate(
        model="tiny", prompt="a cat", size="48x32", n=2, extra_body={"seed": 5, "guidance_scale": 2, "top_k": 50}
    )
    assert answer.size == "48x32" and [item.seed for item in answer.data] == [5, 6]
    settings = {"guidance_scale": 2.0, "top_k": 50, "height": 32, "width": 48}
    for seed, item in zip((5, 6), answer.data):
        assert (
            picture_in(item.b64_json).tobytes()
            == pipe("a cat", generator=generators(seed), **settings).images[0].tobytes()
        )


def test_every_setting_matters(client):
    plain = {"prompt": "a cat", "size": "64x64", "extra_body": {}}
    common = {"seed": 1, "temperature": 3}  # the tiny model is sure of itself

    def draw(**extra):
        return picture_in(
            client.images.generate(**{**plain, "extra_body": {**common, **extra}}).data[0].b64_json
        ).tobytes()

    assert draw() == draw()
    changed = [{"seed": 2}, {"guidance_scale": 1}, {"temperature": 0.1}, {"temperature": 0}, {"top_k": 2}]
    changed += [{"top_p": 0.4}, {"negative_prompt": "a dog"}, {"guidance_min_p": 0.9}]
    assert len({draw(), *(draw(**change) for change in changed)}) == len(changed) + 1


def test_sizes_and_formats(client):
    ratio = client.images.generate(prompt="a cat", extra_body={"aspect_ratio": "2:1"}, output_format="jpeg")
    assert ratio.size == "64x32" and picture_in(ratio.data[0].b64_json).format == "JPEG"
    auto = client.images.generate(prompt="一只猫", size="auto", output_format="webp", output_compression=50)
    assert auto.size == "32x32" and picture_in(auto.data[0].b64_json).format == "WEBP"


def test_edits_an_upload(client, pipe):
    """Multipart, as the client sends it; the result has its source's size."""
    source = picture(1, 60, 45)
    answer = client.images.edit(
        model="tiny", image=("photo.png", png(source)), prompt="make it blue", n=2, extra_body={"seed": 3}
    )
    assert [picture_in(item.b64_json).size for item in answer.data] == [(60, 45)] * 2
    expected = pipe("make it blue", image=source, generator=generators(4)).images[0]
    assert picture_in(answer.data[1].b64_json).tobytes() == expected.tobytes()
    listed = client.images.edit(image=[png(source)], prompt="make it blue", size="32x48", extra_body={"seed": 3})
    assert listed.size == "32x48"


def test_edits_within_a_mask(server, client, pipe):
    """A hole in a copy of the picture, as OpenAI's clients send it, or white on black."""
    source = picture(1, 60, 45)
    white = Image.new("L", source.size, 0)
    white.paste(255, (0, 0, 20, 45))
    hole = Image.merge("RGBA", [*source.split(), Image.eval(white, lambda value: 255 - value)])
    expected = pipe("make it blue", image=source, mask_image=white, generator=generators(3)).images[0]
    assert expected.size == source.size and expected.crop((20, 0, 60, 45)) == source.crop((20, 0, 60, 45))
    assert expected.crop((0, 0, 20, 45)) != source.crop((0, 0, 20, 45))
    for mask in (white, hole):
        answer = client.images.edit(image=png(source), mask=png(mask), prompt="make it blue", extra_body={"seed": 3})
        assert picture_in(answer.data[0].b64_json).tobytes() == expected.tobytes()
        uri = data_uri(png(mask))
        for given in (uri, {"image_url": uri}):
            fields = {"prompt": "make it blue", "seed": 3, "image": data_uri(png(source)), "mask": given}
            status, told, _ = server.request("/v1/images/edits", fields)
            assert status == 200 and told["data"][0]["b64_json"] == answer.data[0].b64_json


def test_edits_of_several_images(server, client, pipe):
    first, second = picture(1, 60, 45), picture(2, 45, 60)
    expected = pipe("both", image=[[first, second]], generator=generators(3)).images[0]
    assert expected.size == second.size
    answer = client.images.edit(image=[png(first), png(second)], prompt="both", extra_body={"seed": 3})
    assert picture_in(answer.data[0].b64_json).tobytes() == expected.tobytes()
    uris = [data_uri(png(one)) for one in (first, second)]
    shown = [{"type": "image_url", "image_url": {"url": uri}} for uri in uris]
    for images in ({"image": uris}, {"images": [{"image_url": uri} for uri in uris]}):
        status, told, _ = server.request("/v1/images/edits", {"prompt": "both", "seed": 3, **images})
        assert status == 200 and told["data"][0]["b64_json"] == answer.data[0].b64_json
        assert told["notices"] == [
            "This Wallaroo checkpoint was not trained on edits of several pictures, so expect little."
        ]
    message = {"role": "user", "content": [*shown, {"type": "text", "text": "both"}]}
    chat = {"messages": [message], "modalities": ["image"], "seed": 3}
    status, told, _ = server.request("/v1/chat/completions", chat)
    assert status == 200
    drawn = told["choices"][0]["message"]["images"][0]["image_url"]["url"].partition(",")[2]
    assert picture_in(drawn).tobytes() == expected.tobytes()
    white = data_uri(png(Image.new("L", second.size, 255)))
    status, told, _ = server.request("/v1/images/edits", {"prompt": "both", "image": uris, "mask": white})
    assert status == 400 and told["error"]["param"] == "mask"


def test_pictures_grow(server, client, pipe):
    source, settings = picture(1, 60, 45), {"seed": 3}
    expected = pipe("make it wider", image=source, outpaint={"left": 10, "top": 5}, generator=generators(3)).images[0]
    assert expected.size == (70, 50) and expected.crop((10, 5, 70, 50)) == source
    answer = client.images.edit(
        image=png(source), prompt="make it wider", extra_body={**settings, "outpaint": "left=10,top=5"}
    )
    assert answer.size == "70x50" and picture_in(answer.data[0].b64_json).tobytes() == expected.tobytes()
    fields = {"prompt": "make it wider", "image": data_uri(png(source)), **settings}
    for given in ({"left": 10, "top": 5}, "left=10,top=5"):
        status, told, _ = server.request("/v1/images/edits", {**fields, "outpaint": given})
        assert status == 200 and told["data"][0]["b64_json"] == answer.data[0].b64_json
    for wrong, sentence in (
        ({"up": 3}, "names the side 'up'"),
        (10**9, "let it grow less"),
        ("wide", "`outpaint` is 'wide', but must be a number of pixels"),
        ([4], "at the side 'left', but must be a whole number"),
    ):
        status, told, _ = server.request("/v1/images/edits", {**fields, "outpaint": wrong})
        assert status == 400 and sentence in told["error"]["message"] and told["error"]["param"] == "outpaint"
    both = {"outpaint": 8, "mask": data_uri(png(Image.new("L", (60, 45), 255)))}
    status, told, _ = server.request("/v1/images/edits", {**fields, **both})
    assert status == 400 and "give one" in told["error"]["message"]


def test_previews_within_a_mask_show_the_rest(client):
    """The whole picture from the first one on; rows that are missing are the source's."""
    source = picture(1, 64, 64)
    white = Image.new("L", source.size, 0)
    white.paste(255, (0, 0, 64, 32))
    events = list(
        client.images.edit(
            image=png(source), mask=png(white), prompt="make it blue", stream=True, partial_images=2, size="64x64"
        )
    )
    shown = [picture_in(event.b64_json) for event in events]
    assert len(shown) == 3 and {one.size for one in shown} == {(64, 64)}
    assert all(one.crop((0, 32, 64, 64)).tobytes() == source.crop((0, 32, 64, 64)).tobytes() for one in shown)
    assert shown[0].crop((0, 16, 64, 32)).tobytes() == source.crop((0, 16, 64, 32)).tobytes()
    assert shown[0].crop((0, 0, 64, 16)).tobytes() != source.crop((0, 0, 64, 16)).tobytes()


def test_edits_json(server, client):
    source = data_uri(png(picture(1, 60, 45)))
    fields = {"prompt": "make it blue", "seed": 3}
    uploaded = client.images.edit(image=png(picture(1, 60, 45)), prompt="make it blue", extra_body={"seed": 3})
    for image in ({"image": source}, {"image": [source]}, {"images": [{"image_url": source}]}):
        status, answer, _ = server.request("/v1/images/edits", {**fields, **image})
        assert status == 200 and answer["data"][0]["b64_json"] == uploaded.data[0].b64_json


def test_refused_edits(client):
    image = png(picture(1))
    with pytest.raises(openai.BadRequestError, match="an edit takes one to 8, of which the last one is changed"):
        client.images.edit(image=[image] * 9, prompt="make it blue")
    with pytest.raises(openai.BadRequestError, match="OpenAI's masks are of the first image"):
        client.images.edit(image=[image, image], mask=image, prompt="make it blue")
    with pytest.raises(openai.BadRequestError, match="a mask of the picture's size"):
        client.images.edit(image=image, mask=png(picture(1, 20, 20)), prompt="make it blue")
    with pytest.raises(openai.BadRequestError, match="black all over"):
        client.images.edit(image=image, mask=png(Image.new("L", (128, 96))), prompt="make it blue")
    with pytest.raises(openai.BadRequestError, match="must be one picture"):
        client.images.edit(image=image, prompt="make it blue", extra_body={"mask": "here"})
    with pytest.raises(openai.BadRequestError, match="did you mean `seed`"):
        client.images.edit(image=image, prompt="make it blue", extra_body={"sed": 3})


def test_streams_previews(client):
    events = list(
        client.images.generate(prompt="a cat", size="32x64", stream=True, partial_images=2, extra_body={"seed": 1})
    )
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]
    assert [picture_in(event.b64_json).size for event in events] == [(32, 16), (32, 32), (32, 64)]
    whole = client.images.generate(prompt="a cat", size="32x64", extra_body={"seed": 1})
    assert events[-1].b64_json == whole.data[0].b64_json
    edited = list(client.images.edit(image=png(picture(1)), prompt="blue", stream=True))
    assert [event.type for event in edited] == ["image_edit.completed"]


def test_answers_about_an_image(client, compact, small_processor):
    """As `generate` answers, greedily."""
    image = picture(2)
    answer = client.chat.completions.create(model="tiny", messages=[_chat("What is it?", image=image)], max_tokens=6)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    text = small_processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = small_processor(text=[text], images=[image], return_tensors="pt")
    tokens = compact.model.generate(**inputs, do_sample=False, max_new_tokens=6)
    words = small_processor.post_process_image_text_to_text(tokens[:, inputs["input_ids"].shape[1] :])[0]
    choice = answer.choices[0]
    assert choice.message.content == words and choice.finish_reason == "length"
    assert answer.usage.prompt_tokens == inputs["input_ids"].shape[1] and answer.usage.completion_tokens == 6


def test_streams_text(client):
    settings = {"model": "tiny", "messages": [_chat("Tell me more.")], "max_tokens": 12, "seed": 3, "temperature": 1.5}
    whole = client.chat.completions.create(**settings).choices[0].message.content
    chunks = list(client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True}))
    words = [chunk.choices[0].delta.content or "" for chunk in chunks[:-1]]
    assert "".join(words) == whole and sum(map(bool, words)) > 3
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.completion_tokens == 12


def test_several_answers(client):
    settings = {"model": "tiny", "messages": [_chat("Say something.")], "max_tokens": 8, "temperature": 2.0}
    both = client.chat.completions.create(**settings, seed=1, n=2)
    second = client.chat.completions.create(**settings, seed=2)
    assert both.choices[1].message.content == second.choices[0].message.content
    assert both.choices[0].message.content != second.choices[0].message.content


def test_stop_strings(client):
    settings = {"model": "tiny", "messages": [_chat("Tell me more.")], "max_tokens": 12, "seed": 3, "temperature": 1.5}
    whole = client.chat.completions.create(**settings).choices[0].message.content
    stop = whole[5:8]
    choice = client.chat.completions.create(**settings, stop=stop).choices[0]
    assert choice.message.content == whole[: whole.index(stop)] and choice.finish_reason == "stop"
    chunks = list(client.chat.completions.create(**settings, stop=[stop, "no such words"], stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole[: whole.index(stop)]


def test_words_and_images(client, likes_to_draw):
    settings = {"model": "tiny", "messages": [_chat("Draw.")], "modalities": ["text", "image"], "max_tokens": 3}
    answer = client.chat.completions.create(**settings, seed=1, extra_body={"size": "48x32"})
    (image,) = answer.choices[0].message.images
    assert picture_in(image["image_url"]["url"]).size == (48, 32)
    assert answer.choices[0].message.content and answer.usage.completion_tokens == 3 + 6
    chunks = list(client.chat.completions.create(**settings, seed=1, extra_body={"size": "48x32"}, stream=True))
    shown = [image for chunk in chunks for image in getattr(chunk.choices[0].delta, "images", None) or []]
    assert shown == [image]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == answer.choices[0].message.content


def test_chats_that_only_draw(client, pipe):
    settings = {"model": "tiny", "modalities": ["image"], "seed": 7}
    messages = [{"role": "system", "content": "Be brief."}, _chat("a cat")]
    drawn = client.chat.completions.create(**settings, messages=messages, extra_body={"size": "32x48"})
    (image,) = drawn.choices[0].message.images
    expected = pipe("a cat", height=48, width=32, generator=generators(7)).images[0]
    assert picture_in(image["image_url"]["url"]).tobytes() == expected.tobytes()
    assert drawn.choices[0].message.content is None and drawn.choices[0].finish_reason == "stop"
    # what was drawn is what the next turn edits
    shown = {"role": "assistant", "content": None, "images": [image]}
    edited = client.chat.completions.create(**settings, messages=[*messages, shown, _chat("make it blue")])
    again = pipe("make it blue", image=expected, generator=generators(7)).images[0]
    assert picture_in(edited.choices[0].message.images[0]["image_url"]["url"]).tobytes() == again.tobytes()
    streamed = list(client.chat.completions.create(**settings, messages=messages, stream=True))
    assert streamed[-1].choices[0].finish_reason == "stop" and streamed[0].choices[0].delta.images


def test_keys(serve):
    with serve(api_keys=("right", "other")) as server:
        for key, allowed in (("right", True), ("other", True), ("wrong", False), ("righ", False)):
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as own:
                if allowed:
                    assert own.models.list().data
                    continue
                with pytest.raises(openai.AuthenticationError) as refused:
                    own.images.generate(prompt="a cat", size="32x32")
                assert refused.value.code == "invalid_api_key"
        assert server.request("/v1/models")[0] == 401 and server.request("/metrics")[0] == 401
        assert server.request("/health")[0] == 200
        assert server.service.metrics.registry.get_sample_value("wallaroo_images_total") == 0


def test_async_client(server):
    import asyncio

    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as own:
            drawings = [own.images.generate(prompt="a cat", size="32x32", extra_body={"seed": k}) for k in range(4)]
            return [item.data[0].b64_json for item in await asyncio.gather(*drawings)]

    images = asyncio.run(ask())
    for seed, image in enumerate(images):
        difference = ImageChops.difference(picture_in(image), server.draw("a cat", seed))
        assert difference.getbbox() is None
