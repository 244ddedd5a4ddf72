"""A seed names a patient, whose organ is in every slice."""

import numpy as np

from tests.phantom import sample_points
from trainer.data.phantom.anatomy import Patient, create_anatomy
from trainer.data.phantom.shapes import HEIGHT


def test_all_is_drawn_in_float32() -> None:
    patient, at = create_anatomy(np.random.default_rng(0)), sample_points(HEIGHT / 2)
    layers = (*patient.wall, *patient.viscera, *patient.spine, patient.organ)
    cut = [layer.shape for layer in layers if layer.shape.box(at.z)]
    assert {shape.depth(at).dtype for shape in cut} == {np.dtype(np.float32)}
    assert patient.lobules.sample(at).dtype == np.float32


def test_random_fields_have_unit_deviation() -> None:
    fields = [invented(seed).grain.sample(sample_points(1.0)) for seed in range(4)]
    assert 0.8 < np.std(fields) < 1.2


def test_a_seed_names_a_patient() -> None:
    assert invented(3) == invented(3)
    assert invented(3) != invented(4)


def test_the_organ_is_cut_by_every_slice() -> None:
    for seed in range(20):
        shape = invented(seed).organ.shape
        assert all(shape.box(z) is not None for z in np.linspace(0.0, HEIGHT, 11).tolist())


def invented(seed: int) -> Patient:
    return create_anatomy(np.random.default_rng(seed))
