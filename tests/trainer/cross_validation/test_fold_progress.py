"""The progress of all folds together."""

from trainer.cross_validation.fold_progress import FoldProgress


def test_a_fold_that_has_not_started_counts_like_the_largest() -> None:
    progress = FoldProgress(3)
    assert progress.sums() == (0, None)
    progress.set(2, 1, 10)
    assert progress.sums() == (1, 30)
    progress.set(1, 0, 12)
    progress.set(2, 5, 10)
    assert progress.sums() == (5, 34)
    progress.set(3, 4, 8)
    assert progress.sums() == (9, 30)
