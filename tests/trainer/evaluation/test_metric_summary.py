"""The mean, deviation and range of a metric over patients."""

import math

import pytest

from trainer.evaluation.metric_summary import summarize


def test_undefined_values_are_excluded_and_counted():
    summary = summarize([0.5, None, 0.7, 0.9])
    assert summary.mean == pytest.approx(0.7)
    assert summary.sd == pytest.approx(0.2)
    assert (summary.min, summary.max) == (0.5, 0.9)
    assert (summary.defined, summary.undefined) == (3, 1)


def test_one_patient_has_no_deviation():
    summary = summarize([0.5])
    assert summary.sd is None
    assert summary.mean is not None
    assert math.isclose(summary.mean, 0.5)


def test_the_summary_of_no_value_is_none():
    summary = summarize([None])
    assert (summary.mean, summary.sd, summary.min, summary.max) == (None, None, None, None)
    assert (summary.defined, summary.undefined) == (0, 1)
