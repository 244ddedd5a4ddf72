"""The scaling of intensities as a value: a window, and its place in JSON."""

from pydantic import TypeAdapter

from contract.imaging.intensity_scaling import IntensityScaling


def test_a_window_scales_to_zero_and_one() -> None:
    scaling = IntensityScaling.from_window(-160.0, 240.0)
    assert scaling == IntensityScaling(-160.0, 240.0, mean=-160.0, std=400.0)
    assert scaling.window == (-160.0, 240.0)


def test_every_bit_survives_json() -> None:
    scaling = IntensityScaling(1 / 3, 200.1, mean=2**0.5, std=1e-9)
    adapter = TypeAdapter(IntensityScaling)
    assert adapter.validate_json(adapter.dump_json(scaling)) == scaling
