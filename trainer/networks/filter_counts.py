"""The filters of the levels of a network, apart from layers.py: planning imports no TensorFlow."""


def count_filters(base_filters: int, max_filters: int | None, level: int) -> int:
    """Filters of a level: they double with each level, up to max_filters if it is set."""
    doubled = base_filters * 2**level
    return doubled if max_filters is None else min(doubled, max_filters)
