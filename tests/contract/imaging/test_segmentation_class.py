"""Classes, and the colors that show them."""

from contract.imaging.segmentation_class import create_classes, single_foreground


def test_a_class_in_color_is_shown_in_it() -> None:
    (each,) = create_classes({"liver": (255, 0, 0)})
    assert (each.name, each.value, each.color) == ("liver", (255, 0, 0), (255, 0, 0))


def test_classes_of_grey_values_have_different_colors() -> None:
    classes = create_classes({f"class{value}": value for value in range(1, 31)})
    assert [each.value for each in classes] == list(range(1, 31))
    assert len({each.color for each in classes}) == 30


def test_a_single_foreground_has_no_value() -> None:
    (foreground,) = single_foreground()
    assert (foreground.name, foreground.value) == ("foreground", None)
