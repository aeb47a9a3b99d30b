"""What is said of a picture that cannot be used."""

__all__ = ["ImageError"]


class ImageError(ValueError):
    """A picture that cannot be used.

    Attributes:
        reason: `"missing_image"` (it is not there), `"broken_image"` (it cannot be read), `"too_large_image"` (more pixels
            than are read) or `"unusable_image"` (it can be read, but is no picture that a model can see).
    """

    def __init__(self, message: str, reason: str = "broken_image") -> None:
        super().__init__(message)
        self.reason = reason
