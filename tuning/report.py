"""What a sweep found, for people: the leaderboard as text and CSV, and two plots."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from contract.config import Config, ParameterSpec, Scalar
from contract.host_info import host_info
from contract.storage import Storage
from trainer.components import lr_schedule
from trainer.visualization.curves import INK, MARK, OTHER, TRAIN, VALID, png, style
from tuning.trial_store import Trial, rank_trials, training_seconds

LEADERBOARD, SCORES, SETTINGS = "leaderboard.csv", "scores.png", "settings.png"

_DPI = 110
_COLUMNS = 3
_REASON_WIDTH = 60
# How a trial ended: its marker on the plots.
_MARKERS = {"finished": "o", "stopped": "v", "out of time": "s", "running": "d"}


def write_report(store: Storage, config: Config, trials: Sequence[Trial]) -> None:
    """Write leaderboard.csv, scores.png and settings.png. trials: best first."""
    monitor = config.train.monitor
    store.write(LEADERBOARD, leaderboard_csv(trials, monitor).encode())
    store.write(SCORES, scores_png(trials, monitor, source(config)))
    store.write(SETTINGS, settings_png(trials, monitor, config.sweep.space, source(config)))


def leaderboard_csv(trials: Sequence[Trial], monitor: str) -> str:
    """A line a trial, the best first, with every searched setting in a column of its own."""
    settings = searched(trials)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    measured = ["rank", "trial", monitor, "epoch", "epochs", "seconds", "state"]
    writer.writerow([*measured, *settings, "run", "reason"])
    for rank, trial in enumerate(trials, start=1):
        best = trial.best(monitor)
        writer.writerow(
            [rank, trial.number]
            + ([best[monitor], int(best["epoch"])] if best else ["", ""])
            + [len(trial.history), round(training_seconds(trial), 1), trial.state]
            + [trial.values.get(key, "") for key in settings]
            + [trial.run, trial.error or ""]
        )
    return stream.getvalue()


def leaderboard_text(trials: Sequence[Trial], monitor: str) -> str:
    """The leaderboard as a table of plain text. trials: best first."""
    settings = searched(trials)
    head = ["rank", "trial", monitor, "epoch", "of", "seconds", "state"]
    head += [key.rpartition(".")[2] for key in settings]
    rows = [head] + [
        _line(rank, trial, monitor, settings) for rank, trial in enumerate(trials, start=1)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    failures = [f"trial {t.number} failed: {t.error}" for t in trials if t.state == "failed"]
    return "\n".join([*lines, *failures])


def _line(rank: int, trial: Trial, monitor: str, settings: Sequence[str]) -> list[str]:
    best = trial.best(monitor)
    score = [f"{best[monitor]:.4f}", f"{best['epoch']:.0f}"] if best else ["-", "-"]
    measured = [str(len(trial.history)), f"{training_seconds(trial):.0f}", trial.state]
    values = [plain(trial.values[key]) if key in trial.values else "-" for key in settings]
    return [str(rank), str(trial.number), *score, *measured, *values]


def plain(value: Scalar) -> str:
    """A setting's value, numbers with a fraction to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def searched(trials: Sequence[Trial]) -> list[str]:
    """The settings that the trials vary."""
    return sorted({key for trial in trials for key in trial.values})


def sweep_status(trials: Sequence[Trial], monitor: str) -> str:
    """One clause on how a sweep stands, for its progress bar."""
    running = [trial for trial in trials if trial.state == "running"]
    epochs = sum(len(trial.history) for trial in trials)
    text = f"{len(running)} running, {epochs} epochs"
    first = rank_trials(trials, monitor)[0] if trials else None
    best = first.best(monitor) if first else None
    if first is None or best is None:
        return text
    return f"{text}, best {monitor} {best[monitor]:.4f} (trial {first.number})"


def source(config: Config) -> str:
    """What a shown result names: sweep, commit, fingerprint and machine."""
    env = host_info()
    commit = (env["commit"] or "no commit")[:10]
    return f"sweep {config.run.name} · {commit} · {config.fingerprint()} · {env['machine']}"


def provenance(config: Config, winner: Trial, fingerprint: str) -> str:
    """The comment at the head of the winner's settings."""
    env, best = host_info(), winner.best(config.train.monitor)
    assert best, "a winner has a score"
    today = datetime.now(UTC).date().isoformat()
    score = f"{config.train.monitor} {best[config.train.monitor]:.4f} at epoch {best['epoch']:.0f}"
    return (
        f"# Winner of sweep {config.run.name}: trial {winner.number}, {score}, {today}.\n"
        f"# Fingerprint {fingerprint}, commit {env['commit']}, on {env['machine']}.\n"
        "# `python -m trainer train` of this file trains it again.\n\n"
    )


def scores_png(trials: Sequence[Trial], monitor: str, footer: str) -> bytes:
    """The score of every trial over the time of the sweep, and the best so far; a PNG."""
    figure = Figure(figsize=(8.4, 4.6), layout="constrained", dpi=_DPI)
    axis = figure.subplots()
    scored = [trial for trial in trials if trial.history]
    unit, name = _unit(max((trial.history[-1]["at"] for trial in scored), default=0.0))
    for trial in reversed(scored):
        _draw_trial(axis, trial, monitor, unit, winner=trial is scored[0])
    _draw_best(axis, scored, monitor, unit)
    style(axis, "Scores over the time of the sweep", name, monitor)
    axis.set_xlim(left=0)
    _legend(axis, scored)
    _foot(figure, footer)
    return png(figure)


def settings_png(
    trials: Sequence[Trial], monitor: str, space: Mapping[str, ParameterSpec], footer: str
) -> bytes:
    """A panel for each searched setting: the best score of each trial against its value; a PNG."""
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
    _legend(axes[0, 0], scored)
    _foot(figure, footer)
    return png(figure)


def _draw_trial(axis: Axes, trial: Trial, monitor: str, unit: float, winner: bool) -> None:
    times = [row["at"] / unit for row in trial.history]
    scores = trial.scores(monitor)
    colour = MARK if winner else TRAIN
    axis.plot(times, scores, color=colour, lw=2.0 if winner else 1.0, zorder=4 if winner else 2)
    axis.plot(times[-1], scores[-1], _MARKERS[_ending(trial)], color=colour, ms=5, zorder=5)
    axis.annotate(
        str(trial.number),
        (times[-1], scores[-1]),
        xytext=(4, 3),
        textcoords="offset points",
        fontsize=7,
        color=INK,
    )


def _draw_best(axis: Axes, trials: Sequence[Trial], monitor: str, unit: float) -> None:
    """The best score so far, as a staircase."""
    sign = lr_schedule.score_sign(monitor)
    told = sorted((row["at"] / unit, row[monitor]) for trial in trials for row in trial.history)
    times, best = [], []
    for at, score in told:
        times.append(at)
        best.append(score if not best else sign * max(sign * score, sign * best[-1]))
    axis.step(times, best, where="post", color=VALID, lw=1.4, ls=(0, (4, 2)), label="best so far")


def _draw_setting(
    axis: Axes, trials: Sequence[Trial], monitor: str, key: str, span: ParameterSpec
) -> None:
    places = _places(span)
    for index, trial in reversed(list(enumerate(trials))):
        best = trial.best(monitor)
        if best is None or key not in trial.values:
            continue
        value = trial.values[key]
        x = places[repr(value)] if places else value
        axis.plot(
            [x],
            [best[monitor]],
            _MARKERS[_ending(trial)],
            color=VALID if index else MARK,
            ms=6 if index else 9,
            alpha=0.75 if index else 1.0,
            zorder=3 if index else 5,
        )
    style(axis, key, "")
    if places and span.choice:
        axis.set_xticks(range(len(span.choice)), [str(value) for value in span.choice])
        axis.set_xlim(-0.5, len(span.choice) - 0.5)
    elif span.loguniform:
        axis.set_xscale("log")
        # Matplotlib's own labels of a short range stand one over the other.
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    elif span.integer:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _places(span: ParameterSpec) -> dict[str, int]:
    """Where each choice stands on its axis; by its text, as 1, 1.0 and True are one key."""
    return {repr(value): index for index, value in enumerate(span.choice or ())}


def _ending(trial: Trial) -> str:
    return trial.state if trial.state in _MARKERS else "running"


def _legend(axis: Axes, trials: Sequence[Trial]) -> None:
    """The winner, and the markers that occur."""
    if not trials:
        return
    axis.plot([], [], "o", color=MARK, ms=8, label=f"winner: trial {trials[0].number}")
    for ending in dict.fromkeys(_ending(trial) for trial in trials):
        label = {"stopped": "stopped early"}.get(ending, ending)
        axis.plot([], [], _MARKERS[ending], color=OTHER, ms=5, label=label)
    axis.legend(frameon=False, fontsize=8, loc="best")


def _foot(figure: Figure, text: str) -> None:
    figure.supxlabel(text, fontsize=7, color=OTHER, x=0.01, ha="left")


def _unit(longest: float) -> tuple[float, str]:
    """Seconds in the unit that suits so many seconds, and the axis's name."""
    if longest < 300:
        return 1.0, "seconds"
    return (60.0, "minutes") if longest < 3 * 3600 else (3600.0, "hours")
