"""What people put in the wrong place on the command line: a picture where words belong, a file where a folder does.

Imports nothing that takes time: it is asked before anything is loaded.
"""

import re
from pathlib import Path

from ..files.whole import has_file_name, require_folder

__all__ = [
    "frames_in",
    "is_folder",
    "is_picture_file",
    "names_a_picture",
    "names_a_video",
    "require_picture_output",
    "require_prompt",
    "require_words",
    "shown",
]

PICTURES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".jxl", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".ico", ".tga", ".svg", ".ppm"),
)
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".wmv", ".flv")
_SUFFIX = re.compile(r"\.[a-z]{3,4}")  # what else ends the name of a file
_SHOWN = 80  # characters of what was given, in messages


def is_picture_file(output: Path) -> bool:
    """Whether --output is one picture's file, not a folder of them."""
    return output.suffix.lower() == ".png" and not output.is_dir()


def require_picture_output(output: Path, num_images: int) -> None:
    """Makes sure that pictures can go where they should: into one .png file, or into a folder.

    Raises:
        ValueError: for another kind of file, several pictures for one file, or a file where a folder should be.
    """
    suffix = output.suffix.lower()
    if output.is_dir():
        return
    if is_picture_file(output):
        if num_images > 1:
            raise ValueError(
                f"{num_images} images cannot be saved to the one file '{output}'; give a folder as --output."
            )
        require_folder(output.absolute().parent)
    elif suffix in PICTURES or has_file_name(output) or _SUFFIX.fullmatch(suffix):
        raise ValueError(
            f"The output '{output}' is named like a file, but pictures are saved as .png (which keeps prompt and seed): "
            f"give --output {output.with_suffix('.png')}, or a folder (make it first if its name shall end in {suffix})."
        )
    else:
        require_folder(output)


def names_a_picture(text: str) -> bool:
    """Whether a text is no words but the path or URL of a picture."""
    text = text.strip()
    if text.startswith("data:image/"):
        return True
    if any(character.isspace() for character in text):
        return _suffix(text) in PICTURES and _is_file(text)
    return _suffix(text.partition("?")[0]) in PICTURES or text.startswith(("http://", "https://", "file://"))


def names_a_video(text: str) -> bool:
    """Whether a text is the path or URL of a video's file, or a folder of frames."""
    return _suffix(text.strip().partition("?")[0]) in VIDEOS or is_folder(text)


def is_folder(text: str) -> bool:
    """Whether a text is the path of a folder."""
    try:
        return Path(text).is_dir()
    except OSError:  # too long for a name, such as a picture in a URI
        return False


def frames_in(folder: str) -> list[str]:
    """The pictures in a folder, in the order of their names; numbers in these count as numbers.

    Raises:
        ValueError: if there is none.
    """
    names = [
        path
        for path in Path(folder).iterdir()
        if path.suffix.lower() in PICTURES and not path.name.startswith(".")  # as macOS keeps beside each file
    ]
    if not names:
        raise ValueError(
            f"The folder {shown(folder)} holds no pictures; give one with the frames of a video, or a file."
        )
    parts = {path: [(not part.isdigit(), part.zfill(20)) for part in re.split(r"(\d+)", path.name)] for path in names}
    return [str(path) for path in sorted(names, key=parts.__getitem__)]


def _suffix(text: str) -> str:
    return Path(text).suffix.lower()


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # too long for a name
        return False


def shown(text: str) -> str:
    """A text as messages quote it."""
    return f"'{text}'" if len(text) <= _SHOWN else f"'{text[:_SHOWN]}...'"


def require_words(text: str, what: str, example: str) -> None:
    """Makes sure that a text has words.

    Args:
        what: what it should say, such as "the question".
        example: a command that is right.

    Raises:
        ValueError: for no words, or the name of a picture.
    """
    if not text.strip():
        raise ValueError(f"There is nothing in {what}, which is empty; say it in words: {example}")
    if names_a_picture(text):
        raise ValueError(f"{shown(text)} is a picture, but {what} is missing; say it in words: {example}")


def require_prompt(text: str) -> None:
    """Makes sure that a prompt says what to draw.

    Raises:
        ValueError: for no words, or the name of a picture or of a file of prompts.
    """
    if not text.strip():
        raise ValueError("The prompt is empty; say what to draw, such as wallaroo generate 'a red heart'.")
    if names_a_picture(text):
        raise ValueError(
            f"The prompt {shown(text)} is a picture; say in words what to draw, or change the picture: wallaroo edit "
            f"{shown(text)} 'what to change'"
        )
    if _suffix(text) and _is_file(text):
        raise ValueError(f"The prompt {shown(text)} is a file; draw every line of it with --prompts {shown(text)}.")
