"""A small byte-level BPE like Qwen2.5's, learned from texts, for small models of every family."""

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken
from transformers import Qwen2Tokenizer

__all__ = ["learn_tokenizer"]

LONGEST_TOKEN = 12  # bytes: a long English word, or four Chinese characters


def learn_tokenizer(texts: Iterable[str], vocab_size: int, special_tokens: Sequence[str]) -> Qwen2Tokenizer:
    """A tokenizer.

    Args:
        texts: what it shall write well; anything else it writes in bytes.
        vocab_size: tokens before the special ones, at most.
        special_tokens: these, in the order of their ids.
    """
    learned = Qwen2Tokenizer().train_new_from_iterator(
        texts, vocab_size=vocab_size, show_progress=False, max_token_length=LONGEST_TOKEN
    )
    added = [AddedToken(token, special=True, normalized=False) for token in special_tokens]
    learned.add_tokens(added, special_tokens=True)
    return learned
