"""Rows of several drawings in one forward, whatever their sizes, prompts, guidance and progress: [`JointRows`]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from ..families.attempts import Attempt
from .attention import WIDTH_STEP, round_up
from .drawing import DrawingRun
from .ragged import RaggedLayer

__all__ = ["JointRows", "RowOutputs"]

_WORTH = 8  # given codes behind one another for which a forward of their own pays, that shortens nobody else's way


@dataclass(frozen=True)
class RowOutputs:
    """What a forward says to the rows of one drawing, as a model's own outputs do.

    Attributes:
        image_logits: `(branches * B, 1, codebook_size)`.
        hidden_states, attentions: not kept.
    """

    image_logits: torch.Tensor
    hidden_states: None = None
    attentions: None = None


@dataclass(eq=False)
class _Member:
    """A drawing whose rows are here.

    Attributes:
        run: goes on with what the forwards say.
        num_images: of the drawing, those that nobody waits for among them.
        num_rows: of all branches.
        kept: those of its rows, branch by branch, that somebody waits for; they stand side by side.
        fed: how many of the ids that it asked for are in the cache.
    """

    run: DrawingRun
    num_images: int
    num_rows: int
    kept: list[int]
    fed: int = 0

    @property
    def num_ready(self) -> int:
        """How many ids the next forwards can take."""
        assert self.run.asked is not None, "drawings that ask for nothing leave"
        return self.run.asked.shape[1] - self.fed

    def next_ids(self, count: int) -> torch.Tensor:
        """The next ids of the rows that are kept, `(rows, count)`."""
        assert self.run.asked is not None
        ids = self.run.asked[:, self.fed : self.fed + count].repeat(self.num_rows // self.num_images, 1)
        return ids if len(self.kept) == self.num_rows else ids[self.kept]

    def of_all_rows(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of the rows that are kept as those of all rows; nobody sees what follows from zeros."""
        if len(self.kept) == self.num_rows:
            return logits
        whole = logits.new_zeros(self.num_rows, *logits.shape[1:])
        whole[self.kept] = logits
        return whole


class JointRows:
    """The keys and values of rows that grow at their own pace, and the forwards over all of them.

    A row's states stand at the beginning of its own slots, without padding, so what a row sees does not depend on its
    neighbours. Rows of a drawing come and go; those that are left move together. A forward takes as many ids as every
    drawing has ready: a line break and the code behind it go together only where all drawings are at one. A drawing with
    many of them, the given codes of an edit within a mask, first runs those by itself.

    Args:
        model: draws.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._members: list[_Member] = []  # in the order of their rows
        self._states: list[tuple[torch.Tensor, torch.Tensor]] = []  # of each layer, (places, heads, room, head_dim)
        self._lengths: list[int] = []  # of each row in the cache, as the host knows them
        self._filled = torch.empty(0, dtype=torch.long)  # the same on the device
        self._positions = torch.empty(0, dtype=torch.long)  # (3, rows, 1), of the newest id
        self._tasks: list[int] = []  # of each row
        self._room = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def __contains__(self, run: DrawingRun) -> bool:
        return any(member.run is run for member in self._members)

    @staticmethod
    def takes(run: DrawingRun) -> bool:
        """Whether a drawing that has begun can go on here: code by code, not compiled, over an ordinary cache."""
        config, cache = run.model.config.get_text_config(), run.cache
        return (
            run.asked is not None
            and run.window == 1
            and not (run.synced or run.job.resumes or run.job.attend_padding)
            and not run.generation_config.return_dict_in_generate
            and not (cache.is_compileable or cache.offloading)
            and config._attn_implementation in ("sdpa", "eager")
            and set(config.layer_types) == {"full_attention"}
        )

    @torch.no_grad()
    def join(self, run: DrawingRun) -> None:
        """Takes over the rows of a drawing that has run its prompts, and lets go of the cache that they were in."""
        decoder, first, width = run.decoder, len(self), run.decoder.length
        lengths = decoder.prompt_mask.sum(dim=1)
        own = lengths.tolist()
        self._make_room(run.cache, first + len(own), max(own) + run.plan.length)
        for (keys, values), layer in zip(self._states, run.cache.layers, strict=True):
            for row, length in enumerate(own):
                keys[first + row, :, :length] = layer.keys[row, :, width - length : width]
                values[first + row, :, :length] = layer.values[row, :, width - length : width]
        last = decoder.position_ids
        filled = torch.cat([self._filled.to(lengths.device), lengths])
        positions = torch.cat([self._positions, last], dim=1) if first else last.clone()
        self._filled, self._positions = filled, positions  # from here on nothing can fail
        self._lengths += own
        self._tasks += [task for task in decoder.tasks for _ in range(decoder.copies)]
        self._members.append(_Member(run, len(run.plan.grids), len(own), list(range(len(own)))))
        run.let_go_of_cache()

    def leave(self, run: DrawingRun, image: int | None = None) -> None:
        """Frees the rows of an image, or of all images of a drawing; nothing happens where they are not here."""
        keep: list[int] = []
        start = 0
        for member in self._members:
            places = list(enumerate(member.kept, start))
            start += len(member.kept)
            if member.run is run:
                places = [(at, row) for at, row in places if image is not None and row % member.num_images != image]
                member.kept = [row for _, row in places]
            keep += [at for at, _ in places]
        self._members = [member for member in self._members if member.kept]
        if len(keep) < len(self):
            self._keep(keep)

    @torch.no_grad()
    def step(self) -> list[tuple[DrawingRun, Exception]]:
        """One forward over all rows; drawings that have all that they asked for go on, and those that end leave.

        Returns:
            Drawings that cannot go on, which leave as well, and why.

        Raises:
            Exception: of a forward; then none of them can go on.
        """
        failed = []
        self._catch_up()
        count = min(member.num_ready for member in self._members)
        device = self._positions.device
        ids = torch.cat([member.next_ids(count).to(device) for member in self._members])
        parts = self._forward(ids).split([len(member.kept) for member in self._members])
        for member, logits in zip(list(self._members), parts, strict=True):
            member.fed += count
            if member.num_ready:
                continue
            member.fed = 0
            with Attempt() as attempt:
                goes_on = member.run.go_on(RowOutputs(member.of_all_rows(logits)))
            if attempt.error is not None:
                failed.append((member.run, attempt.error))
            if attempt.error is not None or not goes_on:
                self.leave(member.run)
        return failed

    def _catch_up(self) -> None:
        """Runs what drawings have ready in plenty, but for its last id, which goes with the others'."""
        first = 0
        for member in self._members:
            if len(self._members) > 1 and member.num_ready > _WORTH:
                count = member.num_ready - 1
                self._forward(member.next_ids(count).to(self._positions.device), first)
                member.fed += count
            first += len(member.kept)

    def _forward(self, input_ids: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Runs the model over the next ids `(rows, k)` of the rows from `first` on.

        Returns:
            Logits `(rows, 1, codebook_size)` behind the last ids.
        """
        rows, count = input_ids.shape
        own = slice(first, first + rows)
        steps = torch.arange(count, device=input_ids.device)
        slots = self._filled[own, None] + steps
        packed = self.model.config.get_text_config()._attn_implementation == "sdpa"
        width = max(self._lengths[own]) + count if packed else self._room
        mask: Any = torch.arange(width, device=slots.device) <= slots[:, None, :, None]
        if not packed:
            dtype = self.model.dtype
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
        cache = DynamicCache(config=self.model.config.get_text_config())
        cache.layers = [RaggedLayer(keys[own], values[own], slots) for keys, values in self._states]
        position_ids = self._positions[:, own] + 1 + steps
        tasks = self._tasks[own]
        one_task = len(set(tasks)) == 1  # then only one adapter and one head run
        outputs = self.model(
            input_ids=input_ids,
            attention_mask={"full_attention": mask},
            position_ids=position_ids,
            cache=cache,
            image_task=tasks[0] if one_task else torch.tensor(tasks, device=slots.device).unsqueeze(1),
            use_cache=True,
            output_image_logits=True,
            logits_to_keep=1,
            **({"step_attention": True} if packed else {}),
        )
        self._filled[own] += count
        self._positions[:, own] = position_ids[:, :, -1:]
        self._lengths[own] = [length + count for length in self._lengths[own]]
        return outputs.image_logits

    def _make_room(self, cache: Any, rows: int, room: int) -> None:
        """Slots for so many rows of so many tokens; what is there stays, also where memory does not suffice."""
        places = len(self._states[0][0]) if self._states else 0
        if rows <= places and room <= self._room:
            return
        room = max(self._room, round_up(room, WIDTH_STEP))
        places = max(rows, 2 * places) if rows > places else places
        grown = []
        for index, layer in enumerate(cache.layers):
            both = []
            for kind, like in enumerate((layer.keys, layer.values)):
                # zeros, for what a mask hides must still be finite
                new = like.new_zeros(places, like.shape[1], room, like.shape[3])
                if len(self):
                    old = self._states[index][kind][: len(self)]
                    new[: len(self), :, : old.shape[2]] = old
                both.append(new)
            grown.append((both[0], both[1]))
        self._states, self._room = grown, room

    def _keep(self, places: list[int]) -> None:
        """Moves the rows at some places together; the others are free."""
        self._lengths = [self._lengths[place] for place in places]
        self._tasks = [self._tasks[place] for place in places]
        self._filled, self._positions = self._filled[places], self._positions[:, places]
        if not places:  # an idle session holds no memory
            self._states, self._room = [], 0
        moved = next((to for to, place in enumerate(places) if to != place), len(places))  # those before stay
        width = max(self._lengths, default=0)
        for states in self._states if moved < len(places) else ():
            for kept in states:
                kept[moved : len(places), :, :width] = kept[places[moved:], :, :width]
