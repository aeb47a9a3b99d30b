"""The web page: what stands behind it, and the page itself in a real browser."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest
from PIL import Image

import browser
from helpers import picture
from running_server import png
from wallaroo_hf import WallarooForConditionalGeneration, WallarooProcessor, default_checkpoint
from wallaroo_hf.files.saved_pictures import slug

pytest.importorskip("gradio", reason="the web page needs gradio: pip install 'wallaroo-hf[app]'")

from wallaroo_hf.web import app_edit, app_texts
from wallaroo_hf.web.app import build_app
from wallaroo_hf.web.app_area import outpainted, painted
from wallaroo_hf.web.app_engine import Drawing, Engine, Settings

PROMPT = "a red heart to the left of a blue star"


@pytest.fixture(scope="module")
def built_in():
    folder = default_checkpoint()
    return WallarooForConditionalGeneration.from_pretrained(folder).eval(), WallarooProcessor.from_pretrained(folder)


@pytest.fixture
def engine(built_in, tmp_path):
    return Engine(*built_in, "built-in checkpoint", tmp_path / "pictures")


def test_drawing_is_followed_row_by_row(engine, monkeypatch):
    monkeypatch.setattr("wallaroo_hf.web.app_engine._PREVIEW_PAUSE", 0)
    steps = list(engine.draw("me", Settings(PROMPT, seed=5, count=2, height=96, width=96)))
    rows = [step.rows for step in steps]
    assert rows == sorted(rows) and rows[-1] == 6 and steps[-1].finished and not steps[-1].stopped
    seen = [image.height for step in steps for image in step.images if image is not None]
    assert min(seen) < 96 and max(seen) == 96
    assert [Image.open(path).text["seed"] for path in steps[-1].files.values()] == ["5", "6"]
    assert all(
        Image.open(path).tobytes() == steps[-1].images[index].tobytes() for index, path in steps[-1].files.items()
    )


def _told_to_stop(engine, tab, steps, meanwhile=lambda: None):
    """All steps of something that is told to stop before it begins, and after what happens `meanwhile`."""
    gate = threading.Event()
    engine._worker.submit(gate.wait, 60)
    seen: list = []
    reader = threading.Thread(target=lambda: seen.extend(steps))
    reader.start()
    while ("me", tab) not in engine._stops:
        time.sleep(0.01)
    meanwhile()
    engine.stop("me", tab)
    gate.set()
    reader.join()
    return seen


def test_stopping_keeps_what_is_there(engine):
    drawing = engine.draw("me", Settings(PROMPT, seed=5, height=128, width=64))
    last = next(drawing)
    engine.stop("somebody else", "draw")
    engine.stop("me", "draw")
    for step in drawing:
        last = step
    assert last.finished and last.stopped and last.rows < 8
    assert last.images[0] is None or last.images[0].height < 128
    assert [path.stem for path in last.files.values()] == [f"{slug(PROMPT)}-5-partial"]


def test_special_tokens_are_refused(engine):
    with pytest.raises(ValueError, match="special token"):
        list(engine.ask("me", None, "a<|im_end|>b"))
    with pytest.raises(ValueError, match="special token"):
        list(engine.draw("me", Settings("<|im_start|>user\na heart<|im_end|>\n", seed=5)))
    with pytest.raises(ValueError, match="special token"):
        list(engine.say("me", engine.conversation(1), "<|vision_start|>", []))


def test_what_is_whole_was_not_stopped(engine):
    *_, last = _told_to_stop(engine, "draw", engine.draw("me", Settings(PROMPT, seed=5, height=16, width=64)))
    assert not last.stopped and [path.stem for path in last.files.values()] == [f"{slug(PROMPT)}-5"]


def test_pictures_of_chats_say_whether_they_are_whole(engine):
    image = picture(1, 32, 32)
    paths = [engine.save(image, "a red heart", 7, partial) for partial in (False, True)]
    assert [path.name for path in paths] == ["a-red-heart-7.png", "a-red-heart-7-partial.png"]


def test_tabs_are_stopped_one_by_one(engine):
    """Also where one is asked for while the other waits, and ends before it."""
    drawing = engine.draw("me", Settings(PROMPT, seed=5, height=128, width=64))
    next(drawing)
    edit = engine.draw("me", Settings("turn it blue", seed=1, height=128, width=64), picture(1, 64, 128))
    drawn: list[Drawing] = []
    *_, edited = _told_to_stop(engine, "edit", edit, meanwhile=lambda: drawn.extend(drawing))
    assert drawn[-1].finished and not drawn[-1].stopped
    assert edited.finished and edited.stopped
    assert not engine._stops


def test_edits_have_their_sources_size(engine):
    *_, last = engine.draw("me", Settings("turn it blue", seed=1), picture(1, 90, 60))
    assert last.images[0].size == (90, 60)


def test_rows_of_an_edit_lie_where_they_belong(engine, monkeypatch):
    """Also while the picture that is shown is older than the last row."""
    source = picture(1, 64, 128)
    row = Image.new("RGB", (64, 16), "red")
    after = app_edit._after(engine, row, source, Drawing([row], [1], rows=3, of=8))
    assert after.size == source.size and after.crop((0, 0, 64, 16)).tobytes() == row.tobytes()
    assert after.crop((0, 16, 64, 128)).tobytes() == source.crop((0, 16, 64, 128)).tobytes()
    monkeypatch.setattr("wallaroo_hf.web.app_engine._PREVIEW_PAUSE", 1000)
    steps = list(engine.draw("me", Settings("turn it blue", seed=1, height=64, width=64), picture(1, 64, 64)))
    assert all(step.images[0].height == 16 * step.shown[0] for step in steps) and steps[-1].shown == [4]


def test_answers_and_chats(engine):
    said = list(engine.ask("me", picture(1, 96, 96), "What colour is it?"))
    assert said[-1] and all(said[-1].startswith(part.strip()) for part in said)
    steps = list(engine.say("me", engine.conversation(1), "Draw a red circle.", []))
    assert any(isinstance(piece, Image.Image) for piece in steps[-1])


def test_words_are_stopped_too(engine):
    """A chat's and an answer's."""
    question = "Describe everything in this picture."
    for tab, words, begin in (
        ("chat", lambda pieces: pieces[0], lambda: engine.say("me", engine.conversation(1), "What can you do?", [])),
        ("ask", lambda said: said, lambda: engine.ask("me", picture(1, 96, 96), question)),
    ):
        whole = words(list(begin())[-1])
        said = words(_told_to_stop(engine, tab, begin())[-1])
        assert len(said) < len(whole) and whole.startswith(said)


def test_mistakes_are_sentences(engine, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for call in (
        lambda: engine.draw("me", Settings("", seed=1)),
        lambda: engine.draw("me", Settings("blue", seed=1), tmp_path / "broken.png"),
        lambda: engine.ask("me", tmp_path / "broken.png", "What?"),
        lambda: engine.ask("me", None, " "),
        lambda: engine.say("me", engine.conversation(1), "", []),
    ):
        with pytest.raises(ValueError, match=r"\.$"):
            list(call())
    *_, last = engine.draw("me", Settings(PROMPT, seed=1))  # the next one is served
    assert last.finished


def test_pictures_that_take_too_long_are_given_up(engine, tmp_path, monkeypatch):
    """At every tab; the next picture is opened."""
    Image.new("RGBA", (4096, 4096), (1, 2, 3, 4)).save(tmp_path / "slow.png", compress_level=1)
    picture(1, 64, 64).save(tmp_path / "quick.png")
    monkeypatch.setattr(engine._decoders, "seconds", 0.05)
    for call in (
        lambda path: engine.draw("me", Settings("blue", seed=1), path),
        lambda path: engine.ask("me", path, "What?"),
        lambda path: engine.say("me", engine.conversation(1), "What?", [path]),
    ):
        with pytest.raises(ValueError, match=r"The image 'slow\.png' takes longer than"):
            list(call(str(tmp_path / "slow.png")))
    monkeypatch.undo()
    assert engine.open(tmp_path / "quick.png").tobytes() == picture(1, 64, 64).tobytes()
    with pytest.raises(ValueError, match="is not there any more"):
        engine.open(tmp_path / "nothing.png")


def test_halves_of_characters_are_refused(engine):
    for call in (
        lambda: engine.draw("me", Settings("a\ud83d", seed=1)),
        lambda: engine.draw("me", Settings("a", seed=1, negative_prompt="\ud83d")),
        lambda: engine.ask("me", None, "a\ud83d"),
        lambda: engine.say("me", engine.conversation(1), "a\ud83d", []),
    ):
        with pytest.raises(ValueError, match="half of a character") as refused:
            list(call())
        assert str(refused.value).encode()


def test_every_word_is_there_in_both_languages():
    for key, words in app_texts.TEXTS.items():
        assert set(words) == {"en", "zh"} and all(words.values()), key
        fields = {
            language: sorted(part.split("}")[0] for part in text.split("{")[1:]) for language, text in words.items()
        }
        assert fields["en"] == fields["zh"], key


def test_sliders(engine):
    """Those that there always were; guidance goes to the end of what does well, else to twice the default."""

    def sliders():
        made = [one for one in build_app(engine).blocks.values() if type(one).__name__ == "Slider"]
        return {one.elem_classes[0]: (one.minimum, one.maximum, one.value) for one in made if one.elem_classes}

    defaults = {name: engine.abilities.setting(name).default for name in ("guidance_scale", "temperature")}
    guidance, temperature = defaults["guidance_scale"], defaults["temperature"]
    plain = tuple(dataclasses.replace(one, sensible=None) for one in engine.abilities.settings)
    engine.abilities = dataclasses.replace(engine.abilities, settings=plain)
    assert sliders() == {
        "set-guidance_scale": (0, max(2, 2 * guidance), guidance),
        "set-guidance_min_p": (0, 1, engine.abilities.setting("guidance_min_p").default),
        "set-temperature": (0, max(2, 2 * temperature), temperature),
    }
    known = tuple(
        dataclasses.replace(one, sensible=(1.0, 2.5)) if one.name == "guidance_scale" else one for one in plain
    )
    engine.abilities = dataclasses.replace(engine.abilities, settings=known)
    assert sliders()["set-guidance_scale"] == (1, max(2.5, guidance), guidance)
    assert engine.notices(Settings("", 1, sampling={"guidance_scale": 3})) == [
        "`guidance_scale` is 3; this checkpoint does well between 1 and 2.5, so expect less."
    ]


# ------------------------------------------------------------------------------------------------------ in a browser

in_browser = pytest.mark.skipif(browser.missing() is not None, reason=f"no browser test: {browser.missing()}")


@pytest.fixture
def address(engine):
    from wallaroo_hf.web.app import launch

    page, url = launch(engine, "127.0.0.1", None, open_browser=False)
    yield url
    page.close()


@in_browser
def test_a_person_draws_edits_asks_and_chats(address, engine):
    """From the first prompt to a chat in Chinese, in Chromium, with the built-in checkpoint."""
    with browser.open_page(address) as page:
        page.find("#prompt textarea")
        page.write("#prompt textarea", PROMPT)
        page.click("#draw")
        assert page.find(".stage figure a[download]").get_attribute("href").startswith("data:image/png;base64,")
        (drawn,) = engine.output.glob("*.png")
        assert Image.open(drawn).text["prompt"] == PROMPT
        page.wait(lambda: "Done in" in page.find("#drawn").text, "the end")

        page.write("#prompt textarea", "something else")
        page.click("#gallery button.thumbnail-item")
        page.wait(lambda: page.find("#prompt textarea").get_attribute("value") == PROMPT, "the settings")
        seed = page.find("#seed input").get_attribute("value")
        assert seed == Image.open(drawn).text["seed"] and not page.find("#fresh input").is_selected()

        page.click("#to-edit")
        page.write("#instruction textarea", "turn the blue star pink")
        page.click("#edit")
        page.wait(lambda: "Done in" in page.find("#edited").text, "the edit")
        assert len(page.all("#compare img")) == 2
        assert len(list(engine.output.glob("turn-the-blue*.png"))) == 1

        page.click("#tab-draw-button")
        page.click("#to-ask")
        page.write("#question textarea", "How many stars are there?")
        page.click("#ask")
        page.wait(lambda: page.find("#answer .answer:not(.waiting)").text.strip(), "the answer")

        page.driver.find_elements("css selector", "#language label")[1].click()
        page.wait(lambda: page.find("#tab-chat-button").text == "聊天", "Chinese")
        page.click("#tab-chat-button")
        page.write("#say textarea", "画一个红色的圆形\ue007")
        page.wait(lambda: page.find("#chatbot .bot").text.strip(), "what the model says")
        elsewhere = [name for name in page.requests() if not name.startswith((address, "data:", "blob:"))]
        assert elsewhere == []


@in_browser
def test_mistakes_are_shown_and_the_page_goes_on(address):
    with browser.open_page(address) as page:
        page.click("#draw")
        page.wait(lambda: "The prompt is empty" in page.find(".toast-body").text, "the error")
        page.write("#prompt textarea", PROMPT)
        page.click("#draw")
        page.find(".stage figure a[download]")


def _strokes(box, colour=(194, 24, 91), size=(64, 64)):
    layer = Image.new("RGBA", size, (0, 0, 0, 0))
    layer.paste((*colour, 255), box)
    return png(layer)


def test_strokes_are_a_mask(engine):
    half = painted(engine, [_strokes((0, 0, 32, 64))], (128, 96))
    assert half.mode == "L" and half.size == (128, 96)
    assert half.crop((0, 0, 64, 96)).getextrema() == (255, 255) and half.crop((64, 0, 128, 96)).getextrema() == (0, 0)
    both = painted(engine, [_strokes((0, 0, 32, 64)), _strokes((0, 0, 64, 32))], (64, 64))
    assert both.crop((32, 0, 64, 32)).getextrema() == (255, 255) == both.crop((0, 32, 32, 64)).getextrema()
    assert painted(engine, [_strokes((0, 0, 64, 64))], (64, 64)).getextrema() == (255, 255)
    assert painted(engine, [_strokes((0, 0, 0, 0))], (64, 64)) is None and painted(engine, None, (64, 64)) is None
    with pytest.raises(ValueError, match="mask"):
        painted(engine, [b"no picture"], (64, 64))
    assert outpainted([0, None, 8, 0]) == {"left": 0, "top": 0, "right": 8, "bottom": 0}
    assert outpainted([0, None, 0, 0]) is None


def test_edits_within_strokes_and_beyond_the_edges(engine):
    source = picture(1, 64, 64)
    mask = painted(engine, [_strokes((0, 0, 32, 64))], source.size)
    steps = list(engine.draw("me", Settings("turn it blue", seed=1, mask=mask), source))
    assert all(step.images[0].size == (64, 64) for step in steps)
    right = (32, 0, 64, 64)
    assert all(step.images[0].crop(right) == source.crop(right) for step in steps)
    assert "painted by hand" in Image.open(steps[-1].files[0]).text["settings"]
    *_, last = engine.draw("me", Settings("turn it blue", seed=1, outpaint={"right": 32}), source)
    assert last.images[0].size == (96, 64) and last.images[0].crop((0, 0, 64, 64)) == source


def test_edits_take_from_other_pictures(engine, tmp_path):
    source, other = picture(1, 64, 64), picture(2, 96, 64)
    other.save(tmp_path / "other.png")
    settings = Settings("put the star into the second picture", seed=1)
    *_, alone = engine.draw("me", settings, source)
    *_, last = engine.draw("me", settings, source, [str(tmp_path / "other.png")])
    assert last.images[0].size == (64, 64) and last.images[0] != alone.images[0]
    (tmp_path / "other.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"'other\.png'"):
        list(engine.draw("me", settings, source, [str(tmp_path / "other.png")]))


@pytest.fixture
def learned(engine):
    """As if the built-in checkpoint had learned all that it can compute."""
    engine.abilities = dataclasses.replace(engine.abilities, untrained=())


def test_the_page_offers_what_was_learned(engine, learned):
    assert engine.offers("video") and engine.offers("composition") and not engine.offers("flying")
    engine.abilities = dataclasses.replace(engine.abilities, untrained=("video",))
    assert not engine.offers("video") and engine.offers("composition")


@in_browser
def test_a_person_paints_over_a_part(learned, address, engine, tmp_path):
    source = picture(1, 96, 96)
    source.save(tmp_path / "source.png")
    with browser.open_page(address) as page:
        page.click("#tab-edit-button")
        page.wait(lambda: page.all("#source input[type=file]"), "where to upload")[0].send_keys(
            str(tmp_path / "source.png")
        )
        page.find("#source img")
        page.click("#others button")
        page.wait(lambda: page.all("#references input[type=file]"), "where to upload more")[0].send_keys(
            str(tmp_path / "source.png")
        )
        page.wait(lambda: "source" in page.find("#references").text.split(), "the reference")
        page.click("#area button")
        canvas = page.find("#strokes canvas")
        time.sleep(1)  # it takes its size
        page.drag(canvas, (-0.2, -0.1), (-0.1, 0.1))
        page.write("#instruction textarea", "make it blue")
        page.click("#edit")
        page.wait(lambda: "Done in" in page.find("#edited").text, "the edit")
        (path,) = engine.output.glob("*.png")
        edited = Image.open(path)
        assert "painted by hand" in edited.text["settings"] and edited.size == (96, 96)
        assert edited.convert("RGB").crop((60, 0, 96, 96)).tobytes() == source.crop((60, 0, 96, 96)).tobytes()
        assert edited.convert("RGB").tobytes() != source.tobytes()
