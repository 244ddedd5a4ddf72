"""Augmentation: the fraction of the copies that those projects make is the probability here."""

from typing import Any

import pytest

from contract.config import Augment
from contract.config.ini.augment_rules import is_augmented, translate_augmentation
from contract.config.ini.outcome import Values

OFF = {"hflip": False, "vflip": False, "rotation": False, "shrinks": ()}


def augment(given: dict[tuple[str, str], Any]) -> Augment:
    settings: dict[str, Any] = {}
    for outcome in translate_augmentation(Values({("model", "generator"): True} | given)):
        settings |= outcome.settings
    return Augment.model_validate(
        {key.removeprefix("data.augment."): value for key, value in settings.items()}
    )


def with_augmentor(**keys: Any) -> Augment:
    return augment({("augmentor", key): value for key, value in (OFF | keys).items()})


def probabilities(settings: Augment) -> dict[str, float]:
    plain = ("flip_horizontal", "flip_vertical", "right_angles")
    return {
        name: value
        for name, value in settings.model_dump().items()
        if (name in plain or name.endswith("_probability")) and value
    }


@pytest.mark.parametrize(
    ("generator", "augmentation", "expected"),
    [
        (True, True, True),
        (True, None, True),
        (True, False, False),
        (False, True, False),
        # Older files have no such key; the section says what is meant.
        (None, True, True),
        (None, None, False),
    ],
)
def test_whether_there_is_augmentation(
    generator: bool | None, augmentation: bool | None, expected: bool
) -> None:
    given = {("model", "generator"): generator, ("generator", "augmentation"): augmentation}
    assert is_augmented(Values({key: v for key, v in given.items() if v is not None})) is expected


def test_without_augmentation_nothing_has_a_probability() -> None:
    settings = augment({("model", "generator"): False, ("augmentor", "hflip"): True})
    assert probabilities(settings) == {}


def test_the_defaults_are_those_of_the_projects() -> None:
    shares = probabilities(augment({}))
    assert shares == pytest.approx(
        {
            "flip_horizontal": 1 / 7,
            "flip_vertical": 1 / 7,
            "right_angles": 3 / 7,
            "scale_probability": 1 / 7,
        },
        abs=1e-4,
    )


def test_angles_are_right_ones_or_a_range() -> None:
    settings = with_augmentor(rotation=True, angles=(0.0, 90.0, 345.0, 10.0))
    assert settings.right_angles == 0.2
    assert (settings.rotation_probability, settings.rotation) == (0.4, 15.0)


def test_sheared_copies_are_flipped_too() -> None:
    settings = with_augmentor(hflip=True, shears=(0.1, -0.2))
    assert settings.shear_probability == pytest.approx(4 / 6, abs=1e-4)
    assert settings.shear == pytest.approx(11.3099)


def test_ranges_are_within_their_limits() -> None:
    given: dict[tuple[str, str], Any] = {
        ("augmentor", "shrinks"): (0.01,),
        ("augmentor", "shears"): (50.0,),
        ("augmentor", "sharpening"): True,
        ("augmentor", "brightening"): True,
        ("augmentor", "distortion"): True,
        ("augmentor", "deformation"): True,
        ("augmentor", "barrdistortion"): True,
        ("augmentor", "pincdistortion"): True,
        ("sharpening", "k"): 2.0,
        ("brightening", "alpha"): 5.0,
        ("distortion", "distortions"): (0.5,),
        ("deformation", "alpha"): 1e6,
        ("barrdistortion", "amount"): 3.0,
        ("pincdistortion", "amount"): -3.0,
    }
    settings = augment(given)
    assert (settings.scale, settings.shear, settings.sharpen) == (3.0, 45.0, 5.0)
    assert (settings.brightness, settings.grid_distortion) == (0.99, 0.99)
    assert (settings.elastic, settings.barrel, settings.pincushion) == (0.2, 1.0, 0.99)


def test_the_elastic_deviation_is_that_of_the_filtered_noise() -> None:
    """The displacements of those projects, drawn as they draw them."""
    np = pytest.importorskip("numpy")
    ndimage = pytest.importorskip("scipy.ndimage")
    noise = np.random.default_rng(0).uniform(-1, 1, (256, 256, 3))
    field = ndimage.gaussian_filter(noise, 8.0, mode="constant", cval=0.0) * 1300
    given: dict[tuple[str, str], Any] = {
        ("augmentor", "deformation"): True,
        ("model", "image_height"): 256,
        ("model", "image_width"): 256,
    }
    # The borders are smoother, because the filter meets zeros there.
    expected = field[32:-32, 32:-32].std() / 256
    assert augment(given).elastic == pytest.approx(expected, rel=0.1)
