"""The results of a sweep for people: the leaderboard as text and CSV, and two plots."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from contract.config import Config, ParameterSpec, SettingValue
from contract.host_info import host_info
from contract.plurals import pluralize
from contract.storage import Storage
from contract.tables import to_csv
from trainer.components import lr_schedule
from trainer.visualization.curves import (
    INK,
    MARK,
    OTHER,
    TRAIN,
    VALID,
    draw_legend,
    encode_figure,
    style_axes,
)
from tuning.trial_store import Trial, rank_trials, training_seconds

LEADERBOARD, SCORES, SETTINGS = "leaderboard.csv", "scores.png", "settings.png"

_DPI = 110
_COLUMNS = 3
# The marker of each status in the plots.
_MARKERS = {"completed": "o", "paused": "v", "out of time": "s", "running": "d"}


def write_report(sweep: Storage, config: Config, trials: Sequence[Trial]) -> None:
    """Write leaderboard.csv, scores.png and settings.png. trials: best first."""
    monitor = config.train.monitor
    footer = describe_source(config)
    sweep.write(LEADERBOARD, leaderboard_csv(trials, monitor))
    sweep.write(SCORES, plot_scores(trials, monitor, footer))
    sweep.write(SETTINGS, plot_settings(trials, monitor, config.sweep.space, footer))


def leaderboard_rows(trials: Sequence[Trial], monitor: str) -> list[dict[str, Any]]:
    """One row per trial, the best first, with a column for every searched setting."""
    settings = searched_settings(trials)
    rows = []
    for rank, trial in enumerate(trials, start=1):
        best = trial.best_epoch(monitor)
        rows.append(
            {
                "rank": rank,
                "trial": trial.number,
                monitor: best[monitor] if best else None,
                "best_epoch": int(best["epoch"]) if best else None,
                "epochs": len(trial.history),
                "seconds": round(training_seconds(trial), 1),
                "status": trial.status,
                **{key: _to_cell(trial.values.get(key)) for key in settings},
                "run": trial.run,
                "error": trial.error,
            }
        )
    return rows


def _to_cell(value: SettingValue | None) -> Any:
    """A pair as in a TOML file: [96, 160]."""
    return list(value) if isinstance(value, tuple) else value


def leaderboard_csv(trials: Sequence[Trial], monitor: str) -> bytes:
    """leaderboard.csv: the rows of leaderboard_rows."""
    rows = leaderboard_rows(trials, monitor)
    return to_csv(list(rows[0]), [list(row.values()) for row in rows])


def leaderboard_text(trials: Sequence[Trial], monitor: str) -> str:
    """The leaderboard as a table of plain text. trials: best first."""
    settings = searched_settings(trials)
    header = ["rank", "trial", monitor, "epoch", "of", "seconds", "status"]
    header += [key.rpartition(".")[2] for key in settings]
    rows = [header] + [
        _text_row(rank, trial, monitor, settings) for rank, trial in enumerate(trials, start=1)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    failed = [trial for trial in trials if trial.status == "failed"]
    errors = [f"trial {trial.number} failed: {trial.error}" for trial in failed]
    return "\n".join([*lines, *describe_networks(trials, monitor), *errors])


def describe_networks(trials: Sequence[Trial], monitor: str) -> list[str]:
    """A line for each network, if network.name was searched; trials and lines: best first."""
    names = dict.fromkeys(trial.values.get("network.name") for trial in trials)
    lines = []
    for name in names:
        own = [trial for trial in trials if trial.values.get("network.name") == name]
        best = own[0].best_epoch(monitor)
        score = f"{best[monitor]:.4f} (trial {own[0].number})" if best else "none"
        seconds = sum(training_seconds(trial) for trial in own)
        count = pluralize(len(own), "trial")
        lines.append(f"{name}: best {monitor} {score}, {count}, {seconds:.0f} s")
    return lines if None not in names else []


def _text_row(rank: int, trial: Trial, monitor: str, settings: Sequence[str]) -> list[str]:
    best = trial.best_epoch(monitor)
    score = [f"{best[monitor]:.4f}", f"{best['epoch']:.0f}"] if best else ["-", "-"]
    measured = [str(len(trial.history)), f"{training_seconds(trial):.0f}", trial.status]
    values = [format_value(trial.values[key]) if key in trial.values else "-" for key in settings]
    return [str(rank), str(trial.number), *score, *measured, *values]


def format_value(value: SettingValue) -> str:
    """The value of a setting; numbers with a fraction to three digits."""
    if isinstance(value, tuple):
        return str(list(value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def searched_settings(trials: Sequence[Trial]) -> list[str]:
    """The settings that differ between the trials."""
    return sorted({key for trial in trials for key in trial.values})


def format_sweep_status(trials: Sequence[Trial], monitor: str) -> str:
    """The status of a sweep in one clause, for its progress bar."""
    running = [trial for trial in trials if trial.status == "running"]
    epochs = sum(len(trial.history) for trial in trials)
    text = f"{len(running)} running, {pluralize(epochs, 'epoch')}"
    first = rank_trials(trials, monitor)[0] if trials else None
    best = first.best_epoch(monitor) if first else None
    if first is None or best is None:
        return text
    return f"{text}, best {monitor} {best[monitor]:.4f} (trial {first.number})"


def describe_source(config: Config) -> str:
    """What every shown result names: sweep, commit, fingerprint and machine."""
    host = host_info()
    commit = (host["commit"] or "no commit")[:10]
    return f"sweep {config.run.name} · {commit} · {config.fingerprint()} · {host['machine']}"


def plot_scores(trials: Sequence[Trial], monitor: str, footer: str) -> bytes:
    """The score of every trial over the time of the sweep, and the best so far; a PNG."""
    figure = Figure(figsize=(8.4, 4.6), layout="constrained", dpi=_DPI)
    axis = figure.subplots()
    scored = [trial for trial in trials if trial.history]
    unit, unit_name = _time_unit(max((t.history[-1]["time_s"] for t in scored), default=0.0))
    for trial in reversed(scored):
        _draw_trial(axis, trial, monitor, unit, is_best=trial is scored[0])
    _draw_best(axis, scored, monitor, unit)
    style_axes(axis, "Scores over the time of the sweep", unit_name, monitor)
    axis.set_xlim(left=0)
    _draw_legend(axis, scored)
    _draw_footer(figure, footer)
    return encode_figure(figure)


def plot_settings(
    trials: Sequence[Trial], monitor: str, space: Mapping[str, ParameterSpec], footer: str
) -> bytes:
    """A panel per searched setting: the best score of each trial over its value; a PNG."""
    scored = [trial for trial in trials if trial.history]
    keys = sorted(space)
    columns = 2 if len(keys) == 4 else max(1, min(_COLUMNS, len(keys)))
    rows = max(1, math.ceil(len(keys) / columns))
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained", dpi=_DPI)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for index, axis in enumerate(axes.ravel()):
        if index >= len(keys):
            axis.set_axis_off()
            continue
        _draw_setting(axis, scored, monitor, keys[index], space[keys[index]])
        axis.set_ylabel(monitor if index % columns == 0 else "", fontsize=9, color=INK)
    _draw_legend(axes[0, 0], scored)
    _draw_footer(figure, footer)
    return encode_figure(figure)


def _draw_trial(axis: Axes, trial: Trial, monitor: str, unit: float, is_best: bool) -> None:
    times = [metrics["time_s"] / unit for metrics in trial.history]
    scores = trial.scores(monitor)
    color = MARK if is_best else TRAIN
    width, zorder = (2.0, 4) if is_best else (1.0, 2)
    axis.plot(times, scores, color=color, lw=width, zorder=zorder)
    axis.plot(times[-1], scores[-1], _MARKERS[_plot_status(trial)], color=color, ms=5, zorder=5)
    axis.annotate(
        str(trial.number),
        (times[-1], scores[-1]),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=7,
        color=INK,
        path_effects=[withStroke(linewidth=2, foreground="white")],
        zorder=6,
    )


def _draw_best(axis: Axes, trials: Sequence[Trial], monitor: str, unit: float) -> None:
    """The best score so far, as a step line."""
    sign = lr_schedule.score_sign(monitor)
    points = sorted((m["time_s"] / unit, m[monitor]) for trial in trials for m in trial.history)
    times, best = [], []
    for time, score in points:
        times.append(time)
        best.append(score if not best else sign * max(sign * score, sign * best[-1]))
    axis.step(times, best, where="post", color=VALID, lw=1.4, ls=(0, (4, 2)), label="best so far")


def _draw_setting(
    axis: Axes, trials: Sequence[Trial], monitor: str, key: str, spec: ParameterSpec
) -> None:
    positions = _choice_positions(spec)
    for index, trial in reversed(list(enumerate(trials))):
        best = trial.best_epoch(monitor)
        if best is None or key not in trial.values:
            continue
        value = trial.values[key]
        x = positions[repr(value)] if positions else value
        axis.plot(
            [x],
            [best[monitor]],
            _MARKERS[_plot_status(trial)],
            color=VALID if index else MARK,
            ms=6 if index else 9,
            alpha=0.75 if index else 1.0,
            zorder=3 if index else 5,
        )
    style_axes(axis, key, "")
    if positions and spec.choice:
        axis.set_xticks(range(len(spec.choice)), [format_value(value) for value in spec.choice])
        axis.set_xlim(-0.5, len(spec.choice) - 0.5)
    elif spec.loguniform:
        axis.set_xscale("log")
        # Matplotlib's default labels of a short range overlap.
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    elif spec.integer:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _choice_positions(spec: ParameterSpec) -> dict[str, int]:
    """The position of each choice on its axis; by repr, because 1, 1.0 and True are equal keys."""
    return {repr(value): index for index, value in enumerate(spec.choice or ())}


def _plot_status(trial: Trial) -> str:
    return trial.status if trial.status in _MARKERS else "running"


def _draw_legend(axis: Axes, trials: Sequence[Trial]) -> None:
    """The best trial, and the markers that occur."""
    if not trials:
        return
    axis.plot([], [], "o", color=MARK, ms=8, label=f"best trial: {trials[0].number}")
    for status in dict.fromkeys(_plot_status(trial) for trial in trials):
        label = {"paused": "paused at a rung"}.get(status, status)
        axis.plot([], [], _MARKERS[status], color=OTHER, ms=5, label=label)
    draw_legend(axis)


def _draw_footer(figure: Figure, text: str) -> None:
    figure.supxlabel(text, fontsize=7, color=OTHER, x=0.01, ha="left")


def _time_unit(longest_s: float) -> tuple[float, str]:
    """The unit that suits a duration in seconds, and the label of its axis."""
    if longest_s < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if longest_s < 3 * 3600 else (3600.0, "hours")
