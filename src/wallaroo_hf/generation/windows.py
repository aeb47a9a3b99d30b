"""Several codes per forward, and the same picture: a window of guesses, of which those that were right are kept.

A code is the argmax of scores plus noise that seed and position fix, so it does not depend on how it was found. A forward
over the last decided token and guesses for those behind it computes, at each, the code that comes next if everything before
it is right. Up to the first guess that was wrong everything is; the code computed there is right as well. What was
computed behind it is not kept, but makes the next guesses: it is mostly right.
"""

from collections.abc import Sequence
from typing import Any

import torch

from .choosing import ScoreRules
from .decoder import PairedDecoder
from .delivery import Delivery
from .outputs import Record, ScoreTable
from .plan import DrawingPlan
from .sampling import NoiseAhead, first_largest

# `window="auto"`: (largest number of images, window). The more images, the less of a forward's time is left unused, and on
# a CPU little is to begin with (benchmarks/decode.py measures it).
AUTO_WINDOWS = ((2, 32), (4, 16), (16, 8))
AUTO_WINDOWS_ON_CPU = ((2, 8),)
# It decides one code at a time once so many forwards have decided fewer codes than this on average.
PATIENCE, LEAST_CODES_PER_FORWARD = 32, 1.1


def auto_window(num_images: int, device: torch.device) -> int:
    """The window of `window="auto"`; 1 for large batches, which leave nothing of a forward's time unused."""
    windows = AUTO_WINDOWS_ON_CPU if device.type == "cpu" else AUTO_WINDOWS
    return next((window for most, window in windows if num_images <= most), 1)


class WindowDrawing:
    """The drawing of a batch by windows. Rows advance at their own pace.

    Args:
        decoder: has not run yet.
        rules: from raw logits to scores.
        plan: the layout of the new tokens, on the device of the ids.
        input_ids: prompts `(B, L)`.
        window: tokens per forward and row, at least 2.
        noise: of the code positions, or None to take the largest score.
        record: of outputs; its scores and logits are written when the drawing ends.
        gives_up: decide one code per forward, all else unchanged, once guesses are rarely right.
    """

    def __init__(
        self,
        decoder: PairedDecoder,
        rules: ScoreRules,
        plan: DrawingPlan,
        input_ids: torch.Tensor,
        window: int,
        noise: NoiseAhead | None,
        record: Record,
        gives_up: bool,
    ) -> None:
        self.decoder, self.rules, self.plan, self.input_ids = decoder, rules, plan, input_ids
        self.window, self.noise, self.record, self.gives_up = window, noise, record, gives_up
        self.gave_up_at: int | None = None
        rows, device = len(input_ids), input_ids.device
        self.codes = _CodeCounts(plan)
        # Decided tokens, then guesses; forced ones are known from the start.
        self.tokens = torch.where(plan.forced_token_ids >= 0, plan.forced_token_ids, rules.vocab_size)  # (B, N)
        self.fed = torch.zeros(rows, dtype=torch.long, device=device)  # tokens whose keys and values are right
        self.decided = torch.zeros_like(self.fed)  # tokens that are right
        # The same on the host, from the one look per forward that windows need.
        self.fed_counts, self.decided_counts = [0] * rows, [0] * rows
        self.guessed = [0] * rows  # up to where there are guesses
        self.scores = _RecentScores(plan, window, rules.codebook_size)
        self.steps = torch.arange(window, device=device)
        tables = [None if wanted is None else self._table() for wanted in (record.scores, record.logits)]
        self.score_table, self.logit_table = tables

    def _table(self) -> ScoreTable:
        return ScoreTable(self.plan, self.rules.vocab_size, self.rules.codebook_size)

    @property
    def complete(self) -> bool:
        """Whether every token is decided."""
        return min(self.decided_counts) == self.plan.length

    def begin(self, resumes: bool) -> None:
        """The first forward, which decides the first code of each row."""
        outputs = self.decoder.resume() if resumes else self.decoder.prefill()
        self.decoder.begin_windows(self.window)
        self._decide(outputs, self.fed, self.fed_counts)

    def advance(self) -> None:
        """One forward over each row's window; decides at least one code of each incomplete row."""
        if self.gave_up_at is None:
            self._guess()
        positions = (self.fed[:, None] + self.steps).clamp(max=self.plan.length - 1)
        outputs = self.decoder.step_windows(self.tokens.gather(1, positions), self.fed, max(self.fed_counts))
        if self.gave_up_at is None:
            self._decide(outputs, self.fed + 1, [count + 1 for count in self.fed_counts])
        else:  # one prediction per row, the one behind its last decided token, or behind as many as the window holds
            first = torch.minimum(self.decided, self.fed + self.window)
            starts = [
                min(decided, fed + self.window)
                for decided, fed in zip(self.decided_counts, self.fed_counts, strict=True)
            ]
            slots = (first - 1 - self.fed).repeat(len(self.decoder.branches)).to(outputs.image_logits.device)
            rows = torch.arange(len(slots), device=slots.device)
            outputs.image_logits = outputs.image_logits[rows, slots][:, None]
            self._decide(outputs, first, starts)
        if self.gives_up and self.gave_up_at is None:
            self._judge()

    def deliver(self, delivery: Delivery) -> bool:
        """Hands on the tokens that are decided in every row; returns whether to stop."""
        start, end = delivery.length - self.input_ids.shape[1], min(self.decided_counts)
        if not delivery.is_followed:
            delivery.put_all(self.tokens[:, start:end])
            return False
        for position in range(start, end):
            scores = None if self.score_table is None else self.score_table.entries(position + 1)
            if delivery.put(self.tokens[:, position], scores):
                return True
        return False

    def end(self, count: int) -> None:
        """Gives the caches back, and the outputs of the `count` tokens that were delivered."""
        self.decoder.end_windows(min(count, *self.fed_counts))
        if self.score_table is not None:
            self.record.scores = self.score_table.entries(count)
        if self.logit_table is not None:
            self.record.logits = self.logit_table.entries(count)

    # ------------------------------------------------------------------------------------------------------ guesses

    def _guess(self) -> None:
        """First guesses for positions that the window reaches now: scores of the row above, noise of the position."""
        length = self.plan.length
        ends = [min(fed + self.window, length) for fed in self.fed_counts]  # where windows end
        count = max(end - start for end, start in zip(ends, self.guessed, strict=True))
        if count <= 0:
            return
        first = torch.tensor(self.guessed, device=self.fed.device)[:, None]
        positions = (first + self.steps[:count]).clamp(max=length - 1)
        codes = self.plan.code_positions.gather(1, positions)
        last = self.plan.code_positions.gather(1, (first - 1).clamp(min=0))
        guesses = self.scores.above(codes, last)
        if self.noise is not None:
            guesses = guesses + self.noise.at(codes, self.codes.before([start + count for start in self.guessed]))
        guesses = _largest(guesses) + self.rules.vocab_size
        # Clamped positions come several times, but hold the end of the image or padding, which is forced.
        keep = self.plan.forced_token_ids.gather(1, positions) >= 0
        self.tokens.scatter_(1, positions, torch.where(keep, self.tokens.gather(1, positions), guesses))
        self.guessed = [max(start, end) for start, end in zip(self.guessed, ends, strict=True)]

    # ----------------------------------------------------------------------------------------------------- decisions

    def _decide(self, outputs: Any, first: torch.Tensor, starts: Sequence[int]) -> None:
        """Keeps what is right.

        Args:
            outputs: with `image_logits` `(branches * B, k, codebook_size)`, which predict the tokens at `first`
                `(B,)` and behind it. All tokens before `first` are right.
            starts: the same as `first`, known to the host.
        """
        length = self.plan.length
        logits = outputs.image_logits.to(device=self.tokens.device, dtype=torch.float32)
        count = logits.shape[1]
        unclamped = first[:, None] + self.steps[:count]  # (B, k)
        positions = unclamped.clamp(max=length - 1)
        scores = self._scores(logits, positions)  # (B, k, V)
        forced = self.plan.forced_token_ids.gather(1, positions)
        guesses = self.tokens.gather(1, positions)
        codes = self.plan.code_positions.gather(1, positions)
        narrow = self.rules.codes_of(scores)
        is_open = forced < 0
        self.scores.keep(codes, self.codes.is_code.gather(1, positions), narrow)
        ends = [min(start + count, length) for start in starts]
        noisy = narrow if self.noise is None else narrow + self.noise.at(codes, self.codes.before(ends))
        settled = ~is_open | (positions < self.decided[:, None])
        tokens = torch.where(settled, guesses, _largest(noisy) + self.rules.vocab_size)
        right = (tokens == guesses)[:, : count - 1].long().cumprod(dim=1).sum(dim=1)  # guesses, one after the other
        fed = torch.minimum(first + right, self.fed + self.window).clamp(max=length - 1)
        newly = ~settled & (unclamped <= fed[:, None])
        for table, values in ((self.score_table, scores), (self.logit_table, self._conditional(logits))):
            if table is not None:
                table.write(positions, newly, values)
        self.tokens.scatter_(1, positions, tokens)
        decided = self.codes.next_open.gather(1, (fed + 1)[:, None]).squeeze(1)  # forced tokens follow for free
        self.fed, self.decided = fed, torch.maximum(decided, self.decided)
        before = self.codes.decided_before(self.decided_counts)
        self.fed_counts, self.decided_counts = torch.stack([self.fed, self.decided]).tolist()
        after = self.codes.decided_before(self.decided_counts)
        self.guessed = [max(old, end) for old, end in zip(self.guessed, ends, strict=True)]
        self.record.forward(outputs, [new - old for new, old in zip(after, before, strict=True)])

    def _conditional(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[: len(self.tokens)]

    def _scores(self, logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Processed scores `(B, k, V)` of the tokens at `positions` `(B, k)`."""
        rows, count = positions.shape
        flat = self.input_ids.new_empty(rows * count, 0)
        guided = self.rules.guided(flat, logits.flatten(0, 1))  # (B * k, codebook_size)
        if self.rules.on_slice:  # such processors do not look at ids
            return self.rules.processed(flat, guided).view(rows, count, -1)
        guided = guided.view(rows, count, -1)
        wanted = torch.tensor(positions.tolist())  # on the host
        scores = guided.new_empty(rows, count, self.rules.vocab_size + self.rules.codebook_size)
        for position in wanted.unique().tolist():  # a call for all rows, as such processors know their number
            there, slots = (wanted == position).nonzero().unbind(dim=1)
            asked = guided[:, 0].clone()
            asked[there] = guided[there, slots]
            ids = torch.cat([self.input_ids, self.tokens[:, :position]], dim=1)
            scores[there, slots] = self.rules.processed(ids, asked)[there]
        return scores

    def _judge(self) -> None:
        """Gives up on guessing if the last forwards decided hardly more than one code."""
        recent = [count for forward in self.record.decided[-PATIENCE:] for count in forward if count]
        if len(self.record.decided) > PATIENCE and sum(recent) < LEAST_CODES_PER_FORWARD * len(recent):
            self.gave_up_at = len(self.record.decided)


class _CodeCounts:
    """Where codes are among the new tokens.

    Args:
        plan: of the drawing.
    """

    def __init__(self, plan: DrawingPlan) -> None:
        is_code, is_open = torch.tensor(plan.is_code).T, torch.tensor(plan.is_open).T  # (B, N)
        zero = torch.zeros(len(is_code), 1, dtype=torch.long)
        counts = [torch.cat([zero, which.long().cumsum(dim=1)], dim=1).tolist() for which in (is_code, is_open)]
        self._before, self._decided_before = counts
        self.is_code = is_code.to(plan.forced_token_ids.device)
        # Per position the first one from there on whose code is decided: (B, N + 1), N where none does.
        own = torch.where(is_open, torch.arange(plan.length), plan.length)
        next_open = own.flip(1).cummin(dim=1).values.flip(1)
        self.next_open = torch.cat([next_open, zero + plan.length], dim=1).to(plan.forced_token_ids.device)

    def before(self, positions: Sequence[int]) -> list[int]:
        """How many codes each row has before a position."""
        return _at(self._before, positions)

    def decided_before(self, positions: Sequence[int]) -> list[int]:
        """How many of them are decided, not given."""
        return _at(self._decided_before, positions)


def _at(counts: Sequence[Sequence[int]], positions: Sequence[int]) -> list[int]:
    return [row[min(position, len(row) - 1)] for row, position in zip(counts, positions, strict=True)]


class _RecentScores:
    """The newest scores of the last row of codes of each image, from which the next row is guessed.

    Args:
        plan: of the drawing.
        window: how many positions are written at one time.
        codebook_size: scores per position.
    """

    def __init__(self, plan: DrawingPlan, window: int, codebook_size: int) -> None:
        device = plan.forced_token_ids.device
        self.columns = torch.tensor(plan.columns, device=device)[:, None]
        self.room = max(plan.columns) + window
        # and one more, for scores where no code is decided
        self.kept = torch.zeros(len(plan.columns), self.room + 1, codebook_size, device=device)
        self.rows = torch.arange(len(plan.columns), device=device)[:, None]

    def keep(self, codes: torch.Tensor, is_code: torch.Tensor, scores: torch.Tensor) -> None:
        """Takes scores `(B, k, codebook_size)` of the codes `(B, k)`, in raster order."""
        self.kept[self.rows, torch.where(is_code, codes % self.room, self.room)] = scores

    def above(self, codes: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """The scores `(B, k, codebook_size)` above codes `(B, k)`, as far above as there are any.

        In the first row of codes, where nothing is above, those of the last code `(B, 1)` that has scores.
        """
        rows_up = (codes - last + self.columns - 1).div(self.columns, rounding_mode="floor").clamp(min=1)
        above = codes - rows_up * self.columns
        return self.kept[self.rows, torch.where(above < 0, last, above) % self.room]


def _largest(scores: torch.Tensor) -> torch.Tensor:
    """Where each row's maximum is: `(B, k, V)` to `(B, k)`."""
    return first_largest(scores.flatten(0, 1)).view(scores.shape[:2])
