"""The tokens that Show-o2 adds, and their ids."""

import pytest

from golden_showo2 import details
from showo2_words import words_tokenizer
from wallaroo_hf.showo2 import ShowO2Config
from wallaroo_hf.showo2.showo2_tokens import SequenceIds, add_tokens, config_token_ids

OTHER_NAMES = {
    **{
        "bos_id": "bos_token_id",
        "eos_id": "eos_token_id",
        "pad_id": "pad_token_id",
        "boi_id": "vision_start_token_id",
    },
    **{"eoi_id": "vision_end_token_id", "img_pad_id": "image_token_id", "vid_pad_id": "video_token_id"},
    **{"img_id": "image_placeholder_token_id", "bov_id": "video_start_token_id", "eov_id": "video_end_token_id"},
}


def test_added_tokens_have_the_released_ids():
    tokenizer, golden = words_tokenizer(), details("token_ids_qwen2_5")
    assert len(tokenizer) == golden["special"]["pad_id"]
    add_tokens(tokenizer)
    assert len(tokenizer) == golden["vocab_len"]
    first = golden["special"]["pad_id"]
    assert tokenizer.convert_ids_to_tokens(list(range(first, golden["vocab_len"]))) == golden["added_in_order"]
    ids = config_token_ids(tokenizer)
    assert ids == {OTHER_NAMES[name]: index for name, index in golden["special"].items()}
    assert tokenizer.pad_token_id == golden["special"]["pad_id"]


def test_the_default_configuration_has_the_same_ids():
    tokenizer = words_tokenizer()
    add_tokens(tokenizer)
    ids = SequenceIds.of_tokenizer(tokenizer)
    assert ids == SequenceIds.of_config(ShowO2Config()) == SequenceIds.of_config(ShowO2Config().to_dict())
    assert SequenceIds.of_config(ShowO2Config(eos_token_id=[7, 8])).eos_token_id == 7


def test_tokens_are_added_once():
    tokenizer = words_tokenizer()
    add_tokens(tokenizer)
    count, ids = len(tokenizer), config_token_ids(tokenizer)
    add_tokens(tokenizer)
    assert (len(tokenizer), config_token_ids(tokenizer)) == (count, ids)


def test_another_tokenizer_is_refused():
    with pytest.raises(ValueError, match=r"lacks the tokens \[PAD\], <image>, <\|vid_start\|>"):
        config_token_ids(words_tokenizer())
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), unk_token="a"
    )
    with pytest.raises(ValueError, match=r"lacks the tokens <\|im_start\|>, .*load it from a converted checkpoint"):
        add_tokens(plain)
