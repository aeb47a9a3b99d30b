"""What is said where prompt and picture are more than a model has positions for."""

__all__ = ["no_room"]


def no_room(words: int, pictures: int, longest: int, prompt: str = "prompt") -> ValueError:
    """The error, whose remedy begins with what takes more of the positions.

    Args:
        words: positions of what was said.
        pictures: positions of what is drawn and of the pictures that it is drawn from.
        longest: positions of the model.
        prompt: what the words are called.
    """
    remedy = f"shorten the {prompt}, or " if words > pictures else ""
    return ValueError(
        f"{prompt.capitalize()} and image together need {words + pictures} positions ({words} of them for words), but the "
        f"model has {longest}; {remedy}ask for a smaller image."
    )
