"""Errors that a user can fix are all of one kind."""

import pytest

from contract import errors


def test_all_are_user_errors() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, errors.UserError) for kind in kinds)
    assert issubclass(errors.NotFoundError, errors.StorageError)


@pytest.mark.parametrize(("text", "whole"), [("no", "no."), ("did you mean x?", "did you mean x?")])
def test_a_sentence_ends_once(text: str, whole: str) -> None:
    assert errors.as_sentence(text) == whole
