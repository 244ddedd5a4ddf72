"""The progress of all folds of a cross-validation together."""


class FoldProgress:
    """The finished steps of all folds; one that has not started has as many as the largest."""

    def __init__(self, num_folds: int) -> None:
        self._num_folds = num_folds
        self._steps: dict[int, tuple[int, int]] = {}

    def set(self, fold: int, done: int, total: int) -> None:
        """Set how many steps of a fold are done, and how many there are; may run in any thread."""
        self._steps[fold] = done, total

    def sums(self) -> tuple[int, int | None]:
        """The finished steps of all folds, and their steps in total; None before any has begun."""
        steps = list(self._steps.values())
        totals = [total for _, total in steps]
        missing = self._num_folds - len(steps)
        total = sum(totals) + missing * max(totals, default=0)
        return sum(done for done, _ in steps), total or None
