"""The pipeline behind server and page, whose notices go to the people who ask, not into the log."""

from ..pipelines import DrawingPipeline

__all__ = ["QuietPipeline"]


class QuietPipeline(DrawingPipeline):
    """Draws without warnings: they quote prompts, so that clients could fill a log with them."""

    def _notify(self, notice: str) -> None:
        pass
