"""Sequences in ids, as the authors' code makes them."""

import pytest

from golden_showo2 import details, recorded
from showo2_words import words_tokenizer
from wallaroo_hf.showo2 import sequences
from wallaroo_hf.showo2.sequences import ChatMarks
from wallaroo_hf.showo2.showo2_tokens import SequenceIds, add_tokens

TINY = SequenceIds(
    bos_token_id=200,
    eos_token_id=201,
    pad_token_id=206,
    vision_start_token_id=202,
    vision_end_token_id=203,
    image_token_id=204,
    video_token_id=205,
    video_start_token_id=208,
    video_end_token_id=209,
    image_placeholder_token_id=207,
)
IMAGE = 25  # tokens of a tiny image, 26 with the time
N = 8  # of those in the sequences with Qwen2.5's ids


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = words_tokenizer()
    add_tokens(tokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def ids(tokenizer):
    return SequenceIds.of_tokenizer(tokenizer)


def _tiny(name):
    tensors = recorded(f"tiny_a/{name}")
    return {key: value.tolist() for key, value in tensors.items() if not value.is_floating_point()}


def _encode(tokenizer, text):
    return tokenizer(text)["input_ids"]


def test_drawing_rows_and_null_rows(tokenizer, ids):
    golden = details("sequences_qwen2_5")["t2i"]
    for index, prompt in enumerate(golden["prompts"]):
        row = sequences.drawing_row(_encode(tokenizer, prompt), N, ids).fitted(48, ids)
        assert row.input_ids == golden["text_tokens"][index] and set(row.labels) == {-100}
        null = sequences.drawing_row([], N, ids).fitted(48, ids)
        assert null.input_ids == golden["text_tokens_null"][index]
        positions = sequences.block_positions(row.input_ids, ids), sequences.block_positions(null.input_ids, ids)
        assert [list(map(list, one)) for one in positions] == [
            golden["modality_positions"][index],
            golden["modality_positions_null"][index],
        ]
        # what is drawn from is the beginning of what is trained
        start = sequences.drawing_prompt(_encode(tokenizer, prompt), ids)
        assert row.input_ids[: len(start)] == start and row.input_ids[len(start)] == ids.image_token_id
        assert null.input_ids[:2] == sequences.null_prompt(ids)


def test_captions(tokenizer, ids):
    golden = details("sequences_qwen2_5")["caption_training"]
    row = sequences.caption_row(_encode(tokenizer, golden["caption"]), N, ids).fitted(48, ids)
    assert row == (golden["text_tokens"], golden["text_labels"])


def _turns(tokenizer, conversation):
    return [tuple(_encode(tokenizer, words) for words in turn) for turn in conversation]


def test_chats_before_tuning(tokenizer, ids):
    golden = details("sequences_qwen2_5")["chat_pre-training"]
    row = sequences.chat_pre_training_row(_turns(tokenizer, golden["conversation"]), [N], ids).fitted(112, ids)
    assert row == (golden["text_tokens"], golden["text_labels"])


def test_chats_of_tuning(tokenizer, ids):
    golden = details("sequences_qwen2_5")["chat_tuning"]
    marks = ChatMarks.of_tokenizer(tokenizer)
    row = sequences.chat_tuning_row(_turns(tokenizer, golden["conversation"]), [N], marks, ids).fitted(112, ids)
    assert row == (golden["text_tokens"], golden["text_labels"])
    assert sequences.block_positions(row.input_ids, ids) == [tuple(golden["modality_positions"][0])]


def test_questions_as_in_training_and_as_in_the_script(tokenizer, ids):
    golden, marks = details("sequences_qwen2_5")["understanding_inference"], ChatMarks.of_tokenizer(tokenizer)
    question = _encode(tokenizer, golden["question"])
    prompt = sequences.understanding_prompt(question, [N], marks, ids, published=True)
    image = [ids.image_token_id] * (N + 1)
    assert prompt == golden["before"] + golden["after"][:1] + image + golden["after"][1:]
    trained = sequences.understanding_prompt([198, *question], [N], marks, ids)
    row = sequences.chat_tuning_row([([ids.image_placeholder_token_id, 198, *question], [5])], [N], marks, ids)
    assert trained == row.input_ids[:-2]


def test_mixed_generation(tokenizer, ids):
    golden = details("sequences_qwen2_5")["mixed_first_image"]
    prompt = sequences.mixed_prompt([_encode(tokenizer, golden["prompt"])], ids, opens_image=True)
    block = [ids.image_token_id] * (N + 1) + [ids.vision_end_token_id]
    for start, name in ((prompt, "text_tokens"), (sequences.null_prompt(ids), "text_tokens_null")):
        whole = start + block
        assert whole + [ids.pad_token_id] * (128 - len(whole)) == golden[name][0]
    assert golden["prompt"].startswith(sequences.FLAG)


def test_tiny_rows_of_training():
    drawing, captions = _tiny("sampling_steps4"), _tiny("train_t2i_caption")
    for rows in (drawing["text_tokens"], captions["text_tokens"][:2]):
        for row in rows:
            prompt = row[1 : row.index(TINY.vision_start_token_id)]
            assert sequences.drawing_row(prompt, IMAGE, TINY).fitted(len(row), TINY).input_ids == row
    caption = captions["text_tokens"][2]
    words = caption[caption.index(203) + 1 : caption.index(201)]
    row = sequences.caption_row(words, IMAGE, TINY).fitted(len(caption), TINY)
    assert row == (caption, captions["text_labels"][2])


@pytest.mark.parametrize("name", ["chat_pre_training", "chat_tuning"])
def test_tiny_chats(name):
    golden, said = _tiny(name), details(f"tiny_a/{name}")
    turns = [(asked, answer[:-1]) for asked, answer in zip(said["source_ids"], said["target_ids"], strict=True)]
    tokens = golden["text_tokens"]
    if name == "chat_pre_training":
        row = sequences.chat_pre_training_row(turns, [IMAGE], TINY)
    else:
        # this tokenizer has no token for what opens a turn; the row is cut in the third one
        opening = tokens[: golden["modality_positions"][0][0] - 1]
        user = opening[opening.index(TINY.eos_token_id) + 1 :]
        row = sequences.chat_tuning_row(turns, [IMAGE], ChatMarks(opening, _answer_mark(golden), user, []), TINY)
    row = row.fitted(len(tokens), TINY)
    assert row == (tokens, golden["text_labels"])
    assert sequences.block_positions(row.input_ids, TINY) == [tuple(golden["modality_positions"][0])]


def _answer_mark(golden):
    """From the first question's end to the first answer."""
    tokens = golden["text_tokens"]
    end = tokens.index(TINY.eos_token_id, tokens.index(TINY.vision_end_token_id))
    return tokens[end : next(index for index, label in enumerate(golden["text_labels"]) if label != -100)]


def test_interleaved_rows():
    golden = _tiny("train_interleaved")
    for tokens, labels in zip(golden["text_tokens"], golden["text_labels"], strict=True):
        body = tokens[6 : tokens.index(TINY.eos_token_id)]
        pieces, text = [], []
        while body:
            if body[0] == TINY.vision_start_token_id:
                pieces += [text, IMAGE]
                text, body = [], body[IMAGE + 3 :]
            else:
                text.append(body.pop(0))
        row = sequences.interleaved_row(tokens[1:6], pieces, TINY, learn_placeholders=True)
        assert row.fitted(len(tokens), TINY) == (tokens, labels)
        ours = sequences.interleaved_row(tokens[1:6], pieces, TINY).fitted(len(tokens), TINY)
        assert ours.input_ids == tokens
        assert ours.labels == [-100 if label == TINY.image_token_id else label for label in labels]


def test_history_of_mixed_generation():
    row, null = _tiny("mixed_generation")["text_tokens"]
    first, second = row[1:9], row[37:41]
    prompt = sequences.mixed_prompt([first, IMAGE, second], TINY, opens_image=True)
    assert row[: len(prompt)] == prompt and row[len(prompt)] == TINY.image_token_id
    assert null[:2] == sequences.null_prompt(TINY)
    assert _tiny("mixed_text_step")["text_tokens"][0] == sequences.mixed_prompt([first, IMAGE, second], TINY, False)


def test_videos_that_are_made():
    golden = _tiny("video")["text_tokens"][0]
    assert sequences.video_row(golden[1:3], 3 * IMAGE, TINY).input_ids == golden


def test_tiny_questions():
    golden = _tiny("understanding")
    after = golden["tokens_after"][0]
    marks = ChatMarks(golden["tokens_before"][0], [], [], [])
    assert sequences.understanding_prompt(after[2:], [IMAGE], marks, TINY) == golden["input_ids"][0]


def test_prompts_are_cut_as_released():
    lengths = {729: 290, 1024: 251, 4096: 251, 36: 256 - 5}
    for num_tokens, longest in lengths.items():
        assert len(sequences.cut_prompt(range(500), num_tokens)) == longest
    assert sequences.cut_prompt([1, 2], 729) == [1, 2]
    assert len(sequences.cut_prompt(range(100), 9, max_length=48)) == 48 - 10 - 4
    assert sequences.cut_prompt([1, 2], 9, max_length=3) == []


def test_images_of_different_sizes_in_one_chat():
    marks = ChatMarks([1], [2], [3], [])
    turns = [([207, 10, 207], [11]), ([12], [13, 207])]
    row = sequences.chat_tuning_row(turns, [4, 9, 1], marks, TINY)
    assert [length for _, length in sequences.block_positions(row.input_ids, TINY)] == [5, 10, 2]
    learned = [label for label in row.labels if label != -100]
    assert learned == [11, 201, 13, 202, 203, 201]  # the marks of what the answer shows, not its placeholders
    with pytest.raises(ValueError, match="A chat has 3 images among its words, but 2 were given"):
        sequences.chat_tuning_row(turns, [4, 9], marks, TINY)
    with pytest.raises(ValueError, match="A chat has 0 images"):
        sequences.chat_pre_training_row([([1], [2])], [4], TINY)


def test_blocks_that_touch_the_ends():
    pad = TINY.image_token_id
    assert sequences.block_positions([pad, pad, 1, pad], TINY) == [(0, 2), (3, 1)]
    assert sequences.block_positions([1, 2], TINY) == []
