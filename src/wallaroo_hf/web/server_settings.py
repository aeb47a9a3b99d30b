"""What can be set about the server."""

from dataclasses import dataclass, field

MEBIBYTE = 2**20
_POSITIVE = (
    *("max_batch", "max_queue", "max_body_bytes", "max_image_pixels", "max_n", "max_connections"),
    *("timeout", "header_timeout", "body_timeout", "image_timeout", "video_timeout"),
    *("max_video_frames", "max_video_pixels", "max_video_memory"),
)


@dataclass(frozen=True)
class ServerSettings:
    """Limits and options of the server.

    Attributes:
        name: the model's name in requests and answers.
        api_keys: keys of which a request must bring one (`Authorization: Bearer KEY`); none: everyone may ask.
        max_batch: most images or answers computed at once.
        window: codes of an image that a forward may decide, a number or "auto"; the same images in fewer forwards. For
            checkpoints that have this setting.
        prefix_cache: mebibytes, beside the model, for what was read of chats, of which the next turn is read from there
            on; 0 = every turn is read whole.
        max_wait: seconds that an idle server waits for more requests of a kind before it begins.
        max_queue: most images and answers that wait; more are refused with 429.
        max_queue_bytes: most memory for images of waiting requests, and as much for the bodies of requests.
        timeout: seconds that a request may take, waiting included.
        max_connections: most connections of clients, half-sent requests included; fewer where the process may not open as
            many files.
        header_timeout: seconds that a client may take to send a request's headers.
        body_timeout: seconds that a client may take to send a request's body, or to take some of an answer.
        max_body_bytes: largest request.
        max_image_bytes: largest image file in a request.
        max_image_pixels: largest width times height of an image in a request.
        image_timeout: seconds of computing that the images of one request may take to be decoded.
        max_images: most images in one chat.
        max_videos: most videos in one chat.
        max_video_frames: most frames in a video's file.
        max_video_pixels: largest width times height of a video.
        max_video_memory: most bytes of the frames of a video that are seen; longer or larger ones are refused.
        video_timeout: seconds of computing that the videos of one request may take to be decoded.
        max_output_pixels: largest width times height to draw.
        max_n: most images or answers of one request.
        max_prompt_chars: longest prompt to draw from, in characters.
        max_prompt_tokens: longest chat, images included.
        max_new_tokens: longest answer.
        url_hosts: hosts (`images.example.org`, or with a port) that images may be fetched from by URL; none: URLs are
            refused.
        url_timeout: seconds for one URL, redirects included.
        allowed_hosts: names by which clients may call the server (the `Host` header); none: any. Keeps web pages from
            reaching a server on this machine under a name of their own (DNS rebinding).
        cors_origins: origins of web pages (`https://chat.example.org`) that may use the server.
        shutdown_timeout: seconds that running work may take after the server was told to stop.
    """

    name: str = "wallaroo"
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    max_batch: int = 8
    window: int | str | None = None
    prefix_cache: int = 512
    max_wait: float = 0.01
    max_queue: int = 128
    max_queue_bytes: int = 1024 * MEBIBYTE
    timeout: float = 600.0
    max_connections: int = 1024
    header_timeout: float = 10.0
    body_timeout: float = 60.0
    max_body_bytes: int = 32 * MEBIBYTE
    max_image_bytes: int = 20 * MEBIBYTE
    max_image_pixels: int = 2**24
    image_timeout: float = 5.0
    max_images: int = 8
    max_videos: int = 1
    max_video_frames: int = 36_000
    max_video_pixels: int = 2**22
    max_video_memory: int = 512 * MEBIBYTE
    video_timeout: float = 30.0
    max_output_pixels: int = 2**20
    max_n: int = 10
    max_prompt_chars: int = 4000
    max_prompt_tokens: int = 8192
    max_new_tokens: int = 4096
    url_hosts: tuple[str, ...] = ()
    url_timeout: float = 10.0
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    shutdown_timeout: float = 300.0

    def __post_init__(self) -> None:
        if self.prefix_cache < 0:
            raise ValueError(f"`prefix_cache` is {self.prefix_cache}, but must be at least 0; 0 keeps nothing.")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but must be positive.")
        if any(not key for key in self.api_keys):
            raise ValueError("An API key is empty; give one of at least one character, or none.")
        for what, text in (("model's name", self.name), *(("API key", key) for key in self.api_keys)):
            if not text.isprintable():  # an answer or header could not hold it; halves of characters are such, too
                raise ValueError(f"The {what} holds characters that cannot be printed; give plain text.")
