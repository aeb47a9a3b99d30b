"""`converse` of Show-o2: what a seed fixes, who hears what, and when a row is over."""

from __future__ import annotations

import pytest
import torch

from helpers import generators
from showo2.tiny_showo2 import BOS, EOS, START, image_ids, left_padded, tiny_showo2
from wallaroo_hf.families.contract import TextSettings
from wallaroo_hf.showo2 import ShowO2ForConditionalGeneration

PICTURE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
ROWS = ([BOS, 1, 2, *image_ids(4), 5, 6], [BOS, 7, 8])
SAMPLED = TextSettings(temperature=1.5, top_k=20, top_p=0.95)
TOKENS = 6  # of an image of 32x48
DRAWING = {"num_inference_steps": 3, "guidance_scale": 2.5}


@pytest.fixture(scope="module")
def model():
    return tiny_showo2()


class Heard:
    """Writes down what it hears; says False where it is told to."""

    def __init__(self, stop=None):
        self.events, self.stop = [], stop

    def _tell(self, *event):
        self.events.append(event)
        return False if self.stop is not None and event[: len(self.stop)] == self.stop else None

    def token(self, row, id):
        return self._tell("token", row, id)

    def image_begins(self, row):
        self._tell("begins", row)

    def image_step(self, row, step):
        self.preview = step.preview()
        return self._tell("step", row, step.done, step.total)

    def image_done(self, row, pixels, num_tokens):
        self._tell("done", row, num_tokens)

    def ended(self, row, answer):
        self._tell("ended", row, answer.reason)


def converse(model, rows, mode="text", seeds=None, text=SAMPLED, limits=None, follow=None, **drawing):
    batch = left_padded(*rows)
    pixels = [PICTURE for row in rows if START in row]
    if pixels:
        batch["pixel_values"] = pixels
    if mode == "auto":
        batch["image_size"] = torch.tensor([[32, 48]] * len(rows))
    return model.converse(
        batch,
        mode=mode,
        follow=follow or Heard(),
        generators=None if seeds is None else generators(*seeds),
        max_new_tokens=limits or [8] * len(rows),
        text=text,
        drawing={**(DRAWING if mode == "auto" else {}), **drawing},
    )


@pytest.fixture
def draws(monkeypatch):
    """Makes the model say two words and draw, twice, and say two words more."""
    write = ShowO2ForConditionalGeneration.write

    def wanting(self, generation_config, kwargs, may_draw=False):
        said = 2

        def want(input_ids, scores):
            nonlocal said
            scores = scores.clone()
            scores[:, [START, EOS]] = -torch.inf
            if said == 0:
                scores = torch.full_like(scores, -torch.inf)
                drawn = len(kwargs["image_latents"]) - int(kwargs["input_ids"][0, 1] == ROWS[0][1])
                scores[:, START if drawn < 2 else EOS] = 0.0
            said -= 1
            return scores

        chosen = [want, *kwargs["logits_processor"]]
        return write(self, generation_config, {**kwargs, "logits_processor": chosen}, may_draw)

    monkeypatch.setattr(ShowO2ForConditionalGeneration, "write", wanting)


def test_a_seed_gives_the_same_answer_alone_or_in_a_batch(model):
    together = converse(model, ROWS, seeds=(1, 2))
    for number, (row, answer) in enumerate(zip(ROWS, together, strict=True)):
        alone = converse(model, [row], seeds=(number + 1,))[0]
        assert alone == answer and answer.prompt_tokens == len(row)
    assert converse(model, ROWS, seeds=(3, 4)) != together


def test_without_temperature_it_is_generate(model):
    answers = converse(model, ROWS, text=TextSettings())
    batch = left_padded(*ROWS)
    tokens = model.generate(**batch, pixel_values=[PICTURE], max_new_tokens=8)
    for row, answer in zip(tokens[:, batch["input_ids"].shape[1] :].tolist(), answers, strict=True):
        words = row[: row.index(EOS)] if EOS in row else row
        assert answer.pieces == [words]
        assert answer.reason == ("stop" if EOS in row else "length") and answer.new_tokens == len(words) + (EOS in row)


def test_each_row_has_its_budget_and_its_end(model):
    follow = Heard()
    answers = converse(model, ROWS, seeds=(1, 2), limits=[2, 7], follow=follow)
    assert answers[0].new_tokens == 2 and answers[0].reason == "length"
    assert answers[1].pieces == converse(model, [ROWS[1]], seeds=(2,), limits=[7])[0].pieces
    said = [event[2] for event in follow.events if event[:2] == ("token", 0)]
    assert said == answers[0].pieces[0]
    ended = [event for event in follow.events if event[0] == "ended"]
    assert ended[0] == ("ended", 0, "length") and len(ended) == 2


def test_a_listener_ends_its_row_only(model):
    full = converse(model, ROWS, seeds=(1, 2))
    first = full[0].pieces[0][0]
    answers = converse(model, ROWS, seeds=(1, 2), follow=Heard(stop=("token", 0, first)))
    assert answers[0].pieces == [[first]] and answers[0].reason == "stopped"
    assert answers[1] == full[1]


def test_published_answers(model, monkeypatch):
    monkeypatch.setattr("wallaroo_hf.showo2.image_codecs.Posterior.sample", lambda posterior: posterior.mean)
    plain = converse(model, ROWS[:1], text=TextSettings(), limits=[5])
    published = converse(model, ROWS[:1], text=TextSettings(), limits=[5], published_eval=True)
    ids = torch.tensor([ROWS[0]])
    expected = model.generate(ids, pixel_values=[PICTURE], max_new_tokens=5, published_eval=True)
    assert published[0].pieces == [expected[0, len(ROWS[0]) :].tolist()] != plain[0].pieces


def test_words_and_pictures_in_turn(model, draws):
    follow = Heard()
    answer = converse(model, ROWS[1:], "auto", seeds=(1,), limits=[50], follow=follow)[0]
    kinds = [type(piece) for piece in answer.pieces]
    assert kinds == [list, torch.Tensor, list, torch.Tensor, list] and answer.reason == "stop"
    assert answer.new_tokens == 3 * 2 + 2 + 1 + 2 * TOKENS and not answer.partial
    assert all(piece.shape == (3, 32, 48) for piece in answer.pieces[1::2])
    names = [event[0] for event in follow.events]
    drawing = ["begins", *["step"] * 3, "done"]
    assert names == ["token"] * 2 + drawing + ["token"] * 2 + drawing + ["token"] * 2 + ["ended"]
    assert [event[2:] for event in follow.events if event[0] == "step"] == [(done, 3) for done in (1, 2, 3)] * 2
    assert ("done", 0, TOKENS) in follow.events and follow.preview.shape == (3, 32, 48)
    native = model.generate(
        torch.tensor([ROWS[1] + answer.pieces[0] + [START]]),
        noise=[torch.randn(16, 4, 6, generator=torch.Generator().manual_seed(1))],
        generation_mode="image",
        **DRAWING,
    )
    torch.testing.assert_close(answer.pieces[1], model.decode_latents(native[0]), rtol=0, atol=1e-4)


def test_pictures_are_their_seeds_alone_or_in_a_batch(model, draws):
    together = converse(model, ROWS, "auto", seeds=(1, 2), limits=[50, 50])
    for number, row in enumerate(ROWS):
        alone = converse(model, [row], "auto", seeds=(number + 1,), limits=[50])[0]
        for one, other in zip(alone.pieces, together[number].pieces, strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_a_picture_that_is_stopped_is_partial(model, draws):
    answers = converse(model, ROWS, "auto", seeds=(1, 2), limits=[50, 50], follow=Heard(stop=("step", 0, 2)))
    assert answers[0].partial and answers[0].reason == "stopped" and len(answers[0].pieces) == 2
    assert answers[0].pieces[1].shape == (3, 32, 48)
    assert not answers[1].partial and answers[1].reason == "stop" and len(answers[1].pieces) == 5


def test_stopping_at_the_last_step_keeps_one_picture(model, draws):
    answer = converse(model, ROWS[1:], "auto", seeds=(1,), limits=[50], follow=Heard(stop=("step", 0, 3)))[0]
    assert answer.partial and len(answer.pieces) == 2


def test_the_budget_is_of_text(model, draws):
    answer = converse(model, ROWS[1:], "auto", seeds=(1,), limits=[3])[0]
    assert [type(piece) for piece in answer.pieces] == [list, torch.Tensor] and answer.reason == "length"
    assert answer.new_tokens == 3 + TOKENS


def test_a_prompt_that_opens_a_picture(model):
    """It is heard from the beginning, though nobody said what opens it."""
    follow = Heard()
    batch = {**left_padded([BOS, 7, START]), "image_size": torch.tensor([[32, 48]])}
    settings = {"generators": generators(1), "max_new_tokens": [2], "text": TextSettings(), "drawing": DRAWING}
    answer = model.converse(batch, mode="auto", follow=follow, **settings)[0]
    assert [event[0] for event in follow.events[:5]] == ["begins", *["step"] * 3, "done"]
    assert isinstance(answer.pieces[0], torch.Tensor) and answer.new_tokens <= 2 + TOKENS


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seeds": None}, "no generators"),
        ({"seeds": (1, 2, 3)}, "2 chats, but 2 limits and 3 generators"),
        ({"seeds": (1, 2), "mode": "auto", "window": 3}, "no drawing setting `window`"),
        ({"seeds": (1, 2), "mode": "auto", "guidance_scale": 0.0}, "`guidance_scale` is 0"),
    ],
)
def test_what_cannot_work_is_said(model, settings, words):
    with pytest.raises(ValueError, match=words):
        converse(model, ROWS, **settings)
