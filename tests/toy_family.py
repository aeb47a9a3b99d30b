"""A family that has nothing in common with ours: flat colours, drawn in steps from continuous latents; no codes, no
temperature, no editing. It stands behind every door, so that doors know the contract only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import BatchFeature, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import ModelOutput
from transformers.processing_utils import ProcessorMixin

from wallaroo_hf.families.abilities import GENERATION, UNDERSTANDING, Abilities
from wallaroo_hf.families.contract import Answer, DrawnImages, Step, TextSettings
from wallaroo_hf.families.registry import Family, register_family
from wallaroo_hf.families.settings import Setting

COLOURS = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
GREY = (0.0, 0.0, 0.0)
SIZES = ((96, 96), (64, 128), (128, 64))
END = "<end>"
_MESSAGE = "{% for part in message['content'] %}{{ part.get('text', '') }}{% endfor %}{{ '\n' }}"
TEMPLATE = "{% for message in messages %}" + _MESSAGE + "{% endfor %}"


def colour_of(text: str) -> tuple[float, float, float]:
    """The first colour that a text names, else grey."""
    found = [(text.find(name), name) for name in COLOURS if name in text]
    return COLOURS[min(found)[1]] if found else GREY


def toy_abilities(config: Mapping[str, Any], generation: Mapping[str, Any], processor: Mapping[str, Any]) -> Abilities:
    """What every toy can do."""
    return Abilities(
        family="Toy",
        tasks=(UNDERSTANDING, GENERATION),
        sizes=SIZES,
        size_multiple=8,
        any_size=True,
        max_positions=4096,
        languages=("en",),
        settings=(
            Setting("num_inference_steps", int, "draw", 4, "Steps from noise to picture.", minimum=1, maximum=50),
            Setting("guidance_scale", float, "draw", 2.0, "How strong the colour is.", minimum=0, sensible=(1.0, 5.0)),
        ),
        progress_unit="step",
    )


class ToyConfig(PreTrainedConfig):
    """Nothing but a name."""

    model_type = "toy"


@dataclass
class ToyOutput(ModelOutput):
    """Of training."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None


class ToyModel(PreTrainedModel, GenerationMixin):
    """One parameter, which colours are multiplied with."""

    config_class = ToyConfig
    main_input_name = "input_ids"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.strength = torch.nn.Parameter(torch.ones(1))
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        pass

    @torch.no_grad()
    def draw(
        self,
        batch: Mapping[str, Any],
        *,
        copies: int = 1,
        generators: Any = None,
        follow: Any = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> DrawnImages:
        """Latents `(3, H / 8, W / 8)` go from noise to a colour."""
        steps = num_inference_steps or 4
        sizes = [size for size in batch["sizes"].tolist() for _ in range(copies)]
        colours = batch["colours"].repeat_interleave(copies, dim=0).float()
        own = generators if isinstance(generators, Sequence) else [generators] * len(sizes)
        noise = [torch.randn(3, height // 8, width // 8, generator=one) for one, (height, width) in zip(own, sizes)]
        targets = [(colour * self.strength.float()).clamp(-1, 1)[:, None, None] for colour in colours]
        latents, done, complete = list(noise), 0, True
        for step in range(1, steps + 1):
            share = step / steps
            latents = [(1 - share) * start + share * target for start, target in zip(noise, targets)]
            done = step
            if follow is not None:
                told = [
                    follow(Step(image, step, steps, lambda latent=latent: _pixels(latent)))
                    for image, latent in enumerate(latents)
                ]
                if False in told and step < steps:
                    complete = False
                    break
        assert done
        return DrawnImages([_pixels(latent) for latent in latents], complete, latents)

    def forward(
        self, colours: torch.Tensor, targets: torch.Tensor, learns: torch.Tensor, **tokens: torch.Tensor
    ) -> ToyOutput:
        """How far colours are from those to learn, `(B, 3)`, where `learns` (B,) is 1."""
        far = (colours * self.strength - targets).square().mean(dim=1)
        loss = (far * learns).sum() / learns.sum().clamp(min=1)
        return ToyOutput(loss=loss, losses={"colour": loss} if learns.any() else {})

    def session(self, max_rows: int, **settings: Any) -> ToySession:
        """Drawings that come and go."""
        return ToySession(self, max_rows, settings)

    def reconstruct(self, pixels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """To latents and back: the mean of each 8x8 pixels."""
        return [_pixels(torch.nn.functional.avg_pool2d(one, 8)) for one in pixels]

    def generate(
        self,
        input_ids: torch.Tensor | None = None,
        generation_mode: str = "text",
        max_new_tokens: int = 20,
        streamer: Any = None,
        **arguments: Any,
    ) -> torch.Tensor:
        """Answers "ok"."""
        assert input_ids is not None and generation_mode == "text"
        said = torch.tensor([self._said()[:max_new_tokens]] * len(input_ids))
        if streamer is not None:
            streamer.put(input_ids)
            for token in said[0]:
                streamer.put(token[None])
            streamer.end()
        return torch.cat([input_ids, said], dim=1)

    def converse(
        self,
        batch: Mapping[str, Any],
        *,
        mode: str,
        follow: Any,
        generators: Any,
        max_new_tokens: Sequence[int],
        text: TextSettings,
        drawing: Mapping[str, Any],
    ) -> list[Answer]:
        """Says "ok"; where a colour is named and it may, it draws first."""
        answers = []
        for row, colour in enumerate(batch["colours"].tolist()):
            answer = Answer(prompt_tokens=int(batch["attention_mask"][row].sum()), reason="stop")
            if mode == "auto" and tuple(colour) != GREY:
                follow.image_begins(row)
                one = {"sizes": batch["sizes"][row : row + 1], "colours": batch["colours"][row : row + 1]}
                generator = None if generators is None else generators[row]
                drawn = self.draw(
                    one, generators=generator, follow=lambda step, row=row: follow.image_step(row, step), **drawing
                )
                answer.pieces.append(drawn.pixels[0])
                answer.partial = not drawn.complete
                if drawn.complete:
                    follow.image_done(row, drawn.pixels[0], 1)
                answer.new_tokens += 1
            words = self._said()[: max_new_tokens[row]]
            told = [follow.token(row, token) for token in words] if not answer.partial else [False]
            answer.pieces += [] if answer.partial else [words]
            answer.new_tokens += len(words)
            if False in told:
                answer.reason = "stopped"
            follow.ended(row, answer)
            answers.append(answer)
        return answers

    def _said(self) -> list[int]:
        return list(b"ok")  # the tokenizer's ids are bytes


class ToySession:
    """See [`wallaroo_hf.families.contract.DrawingSession`]."""

    def __init__(self, model: ToyModel, max_rows: int, settings: Mapping[str, Any]) -> None:
        self.model, self.max_rows, self.settings = model, max_rows, dict(settings)
        self.waiting: dict[int, Any] = {}
        self.coming: dict[int, list[Step]] = {}  # steps of drawings that are under way
        self.over: dict[int, DrawnImages] = {}
        self.count = 0

    def admit(
        self, row: Any, generator: torch.Generator | None = None, settings: Mapping[str, Any] | None = None
    ) -> int:
        """A row."""
        if len(self.waiting) + sum(map(bool, self.coming.values())) >= self.max_rows:
            raise ValueError("The session is full; wait.")
        self.waiting[self.count] = (row, generator, {**self.settings, **(settings or {})})
        self.count += 1
        return self.count - 1

    def step(self) -> list[Step]:
        """One step of each."""
        for number, (row, generator, settings) in self.waiting.items():
            steps: list[Step] = []
            self.over[number] = self.model.draw(row, generators=generator, follow=steps.append, **settings)
            self.coming[number] = [Step(number, step.done, step.total, step.preview) for step in steps]
        self.waiting = {}
        return [steps.pop(0) for steps in self.coming.values() if steps]

    def is_over(self, drawing: int) -> bool:
        """Whether no step of it will come."""
        return drawing not in self.waiting and not self.coming.get(drawing)

    def cancel(self, drawing: int) -> None:
        """Ends one."""
        if not self.is_over(drawing):
            self.waiting.pop(drawing, None)
            self.coming.pop(drawing, None)
            self.over[drawing] = DrawnImages([None], False, None)

    def take(self, drawing: int) -> DrawnImages:
        """One that is over."""
        assert self.is_over(drawing)
        self.coming.pop(drawing, None)
        return self.over.pop(drawing)


def _pixels(latent: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(latent[None], scale_factor=8, mode="nearest")[0].clamp(-1, 1)


class ToyProcessor(ProcessorMixin):
    """Words to colours."""

    attributes = ["tokenizer"]
    tokenizer_class = "PreTrainedTokenizerFast"

    def __init__(self, tokenizer: Any = None, chat_template: str | None = None) -> None:
        super().__init__(tokenizer, chat_template=chat_template)

    @property
    def special_words(self) -> tuple[str, ...]:
        """Of its tokenizer."""
        return (END,)

    def __call__(
        self,
        images: Any = None,
        text: Any = None,
        videos: Any = None,
        audio: Any = None,
        *,
        generation_mode: str = "text",
        height: Any = None,
        width: Any = None,
        aspect_ratio: Any = None,
        negative_prompt: Any = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Colours and sizes beside the ids."""
        texts = [text] if isinstance(text, str) else list(text)
        rows = [_rows(value, len(texts)) for value in (height, width, aspect_ratio)]
        sizes = [toy_abilities({}, {}, {}).pick_size(*row) for row in zip(*rows)]
        for size in sizes:
            toy_abilities({}, {}, {}).check_size(*size)
        encoded = self.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
        last = [one.strip().rsplit("\n", 1)[-1] for one in texts]
        return BatchFeature(
            {
                "input_ids": encoded["input_ids"],
                "attention_mask": encoded["attention_mask"],
                "colours": torch.tensor([colour_of(one) for one in last]),
                "sizes": torch.tensor(sizes),
            }
        )

    def collate(self, rows: Sequence[BatchFeature]) -> BatchFeature:
        """Padded on the left."""
        widest = max(row["input_ids"].shape[1] for row in rows)

        def pad(name: str, value: int) -> torch.Tensor:
            parts = [torch.nn.functional.pad(row[name], (widest - row[name].shape[1], 0), value=value) for row in rows]
            return torch.cat(parts)

        data = {"input_ids": pad("input_ids", self.tokenizer.pad_token_id), "attention_mask": pad("attention_mask", 0)}
        return BatchFeature(data | {name: torch.cat([row[name] for row in rows]) for name in ("colours", "sizes")})

    def to_pixels(self, image: Image.Image, height: int, width: int) -> torch.Tensor:
        """[-1, 1]."""
        array = np.asarray(image.convert("RGB").resize((width, height)), dtype=np.float32)
        return torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1)

    def pictures(self, pixels: Sequence[torch.Tensor]) -> list[Image.Image]:
        """Rounded to the nearest."""
        arrays = [((one.float() + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0) for one in pixels]
        return [Image.fromarray(array.cpu().numpy()) for array in arrays]

    def fit_back(self, images: Sequence[Image.Image], sources: Sequence[Any], source_fit: str = "pad") -> Any:
        """It edits nothing."""
        raise AssertionError("nothing is edited")

    def continue_chat(self, messages: Sequence[dict[str, Any]], pieces: Sequence[Any], prompt: str) -> Any:
        """Words only."""
        said = "".join(piece for piece in pieces if isinstance(piece, str))
        answer = {"role": "assistant", "content": [{"type": "text", "text": said}]}
        return [*messages, answer, {"role": "user", "content": [{"type": "text", "text": prompt}]}]

    def count_tokens(self, messages: Sequence[dict[str, Any]], may_draw: bool = False) -> int:
        """Bytes."""
        return len(self.tokenizer(self.apply_chat_template(list(messages), tokenize=False))["input_ids"])

    def post_process_image_text_to_text(self, generated_outputs: Any, **options: Any) -> list[str]:
        """Ids to text."""
        return self.tokenizer.batch_decode(generated_outputs, skip_special_tokens=True)


def _rows(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_of)
    vocabulary = {letter: index for index, letter in enumerate(letters)} | {END: 256}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=END, eos_token=END)


def _byte_of(letter: str) -> int:
    """Printable bytes stand for themselves, the others for letters from 256 on, as in GPT-2."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return ord(letter) if ord(letter) in printable else others[ord(letter) - 256]


PARTS = {"colours": ("strength",)}
FAMILY = Family(
    model_type="toy",
    title="Toy",
    config="toy_family:ToyConfig",
    model="toy_family:ToyModel",
    processor="toy_family:ToyProcessor",
    abilities="toy_family:toy_abilities",
    parts="toy_family:PARTS",
    kit="toy_kit:KIT",
    ablation="toy_ablation:ABLATION",
)


def save_toy(folder: Any) -> str:
    """Registers the family and writes a checkpoint of it."""
    register_family(FAMILY)
    ToyModel(ToyConfig(architectures=["ToyModel"])).save_pretrained(folder)
    ToyProcessor(toy_tokenizer(), chat_template=TEMPLATE).save_pretrained(folder)
    return str(folder)
