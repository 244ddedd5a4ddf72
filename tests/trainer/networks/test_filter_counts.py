"""The filters of the levels of a network."""

from trainer.networks.filter_counts import count_filters


def test_filters_double_with_each_level_up_to_a_cap() -> None:
    assert [count_filters(16, None, level) for level in range(5)] == [16, 32, 64, 128, 256]
    assert [count_filters(16, 64, level) for level in range(5)] == [16, 32, 64, 64, 64]
