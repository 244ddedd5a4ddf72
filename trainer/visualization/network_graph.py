"""A network as a drawing: its stages as boxes, from left to right and from fine to coarse, as SVG.

A U-shaped network is drawn as a U.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_BOX_WIDTH, _BOX_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 150, 58, 40, 34, 20
_INK, _LINE, _FILL, _EDGE = "#1a1c1f", "#4a6fa5", "#eef3fa", "#8a93a0"


@dataclass(frozen=True)
class Stage:
    """One box.

    Attributes:
        name: The name of the stage.
        lines: What is written below it: the shape of its output, its parameters.
        level: How often the sides have been halved; 0 is the size of the slices.
        inputs: The names of the stages whose features it reads.
    """

    name: str
    lines: Sequence[str]
    level: float
    inputs: Sequence[str]


def render_network_graph(title: str, stages: Sequence[Stage]) -> str:
    """The drawing as an SVG document. stages: in the order of computation."""
    cells = _assign_cells(stages)
    columns = 1 + max(column for column, _ in cells.values())
    rows = 1 + max(row for _, row in cells.values())
    width = 2 * _MARGIN + columns * (_BOX_WIDTH + _GAP_X)
    height = 3 * _MARGIN + rows * (_BOX_HEIGHT + _GAP_Y)
    edges = [
        _draw_edge(cells[source], cells[stage.name])
        for stage in stages
        for source in stage.inputs
        if source in cells
    ]
    boxes = [_draw_box(stage, cells[stage.name]) for stage in stages]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif">',
            '<rect width="100%" height="100%" fill="white"/>',
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{_EDGE}"/></marker>'
            "</defs>",
            f'<text x="{_MARGIN}" y="{_MARGIN + 4}" font-size="15" fill="{_INK}">{escape(title)}'
            "</text>",
            *edges,
            *boxes,
            "</svg>\n",
        ]
    )


def _assign_cells(stages: Sequence[Stage]) -> Mapping[str, tuple[int, int]]:
    """Column and row of each stage: later ones further right, coarser ones further down.

    Stages of one column and row get rows of their own below.
    """
    columns: dict[str, int] = {}
    for stage in stages:
        # An input that comes later, in a stage that both reads and feeds another, is left out.
        before = [columns[source] for source in stage.inputs if source in columns]
        columns[stage.name] = 1 + max(before, default=-1)
    levels = {stage.name: round(stage.level) for stage in stages}
    heights = {
        level: max(_count(columns, levels, column, level) for column in set(columns.values()))
        for level in set(levels.values())
    }
    first_row = {
        level: sum(heights[finer] for finer in heights if finer < level) for level in heights
    }
    used: dict[tuple[int, int], int] = {}
    cells = {}
    for stage in stages:
        cell = columns[stage.name], levels[stage.name]
        cells[stage.name] = cell[0], first_row[cell[1]] + used.get(cell, 0)
        used[cell] = used.get(cell, 0) + 1
    return cells


def _count(columns: Mapping[str, int], levels: Mapping[str, int], column: int, level: int) -> int:
    return sum(columns[name] == column and levels[name] == level for name in columns)


def _corner(cell: tuple[int, int]) -> tuple[int, int]:
    column, row = cell
    return (
        _MARGIN + column * (_BOX_WIDTH + _GAP_X),
        2 * _MARGIN + row * (_BOX_HEIGHT + _GAP_Y),
    )


def _draw_edge(source: tuple[int, int], target: tuple[int, int]) -> str:
    x1, y1 = _corner(source)
    x2, y2 = _corner(target)
    start_x, start_y, end_y = x1 + _BOX_WIDTH, y1 + _BOX_HEIGHT / 2, y2 + _BOX_HEIGHT / 2
    bend = max(_GAP_X / 2, math.fabs(x2 - start_x) / 3)
    # An edge along a row would run behind the boxes between its ends.
    lift = _BOX_HEIGHT if source[1] == target[1] and target[0] - source[0] > 1 else 0
    return (
        f'<path d="M{start_x} {start_y}C{start_x + bend} {start_y - lift} {x2 - bend} '
        f'{end_y - lift} {x2} {end_y}" fill="none" stroke="{_EDGE}" stroke-width="1.3" '
        'marker-end="url(#arrow)"/>'
    )


def _draw_box(stage: Stage, cell: tuple[int, int]) -> str:
    x, y = _corner(cell)
    middle = x + _BOX_WIDTH / 2
    texts = [
        f'<text x="{middle}" y="{y + 17}" font-size="12" font-weight="bold" fill="{_INK}" '
        f'text-anchor="middle">{escape(stage.name)}</text>',
        *(
            f'<text x="{middle}" y="{y + 33 + 14 * index}" font-size="10.5" fill="{_INK}" '
            f'text-anchor="middle">{escape(line)}</text>'
            for index, line in enumerate(stage.lines)
        ),
    ]
    return (
        f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="6" '
        f'fill="{_FILL}" stroke="{_LINE}"/>' + "".join(texts)
    )
