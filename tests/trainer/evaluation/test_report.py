import dataclasses
from html.parser import HTMLParser

import pytest

from contract.imaging.mask_encoding import threshold_encoding
from contract.storage import LocalStorage
from trainer.data.dataset_index import Dataset
from trainer.evaluation.evaluate import Evaluation, evaluate
from trainer.evaluation.report import render_report
from trainer.visualization import curves


@pytest.fixture(scope="module")
def evaluation(prepared, thresholding, tmp_path_factory) -> Evaluation:
    config = prepared.config
    destination = LocalStorage(tmp_path_factory.mktemp("evaluation"))
    return evaluate(
        thresholding,
        prepared.dataset,
        "test",
        config.data,
        config.predict,
        destination,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> LocalStorage:
    """What a training leaves of its curves."""
    run = LocalStorage(tmp_path_factory.mktemp("run"))
    history = [{"epoch": 1.0, "loss": 1.0, "val_loss": 1.0, "dice_coef": 0.5}]
    run.write("train_losses.png", curves.plot_losses(history))
    run.write("train_metrics.png", curves.plot_metrics(history, ["dice_coef"]))
    return run


class Links(HTMLParser):
    """Collects all that a page could load, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        loading = ("src", "href", "srcset", "poster", "data", "action")
        self.addresses += [value or "" for name, value in attrs if name in loading]


def test_the_report_loads_nothing_from_anywhere(evaluation, run, prepared):
    html = render_report(run, evaluation, prepared.config)
    links = Links(html)
    assert len(links.addresses) == 9
    assert all(address.startswith("data:image/png;base64,") for address in links.addresses)
    assert "script" not in links.tags
    assert "link" not in links.tags
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_the_report_names_its_figures_and_their_origin(evaluation, prepared):
    html = render_report(None, evaluation, prepared.config)
    assert "not a medical device" in html
    for text in ("0.550", "± 0.512", "undefined for 2", "invented", "quiet"):
        assert text in html
    manifest = evaluation.manifest
    for text in (manifest.fingerprint, manifest.commit, manifest.machine, evaluation.bundle):
        assert text in html
    assert evaluation.host_info["python"] in html
    assert "learning_rate = 0.002" in html
    assert "2 of 5 patients and 2 of 6 slices have no foreground" in html
    assert "both masks are empty in 1 patients, only the ground truth in 1, only the pred" in html
    assert "The spacing of the slices is unknown" in html
    assert "train 3 patients, 4 slices; valid 1 patients, 1 slices; test 5 patients, 6" in html
    assert "Expected and maximum calibration error" in html
    assert "not empty in 1 of these patients and 1 of these slices" in html


def test_the_worst_patient_is_met_first(evaluation, prepared):
    html = render_report(None, evaluation, prepared.config)
    assert html.index("<td>missed") < html.index("<td>half") < html.index("<td>quiet")


def test_the_curves_are_shown_where_the_run_is_available(evaluation, run, prepared):
    assert "Loss of each epoch" in render_report(run, evaluation, prepared.config)
    assert "<h2>Training</h2>" not in render_report(None, evaluation, prepared.config)


def test_a_phantom_is_called_one(evaluation, prepared):
    phantom = prepared.config.with_values({"data.source": "phantom", "data.root": None})
    assert "built-in phantom" in render_report(None, evaluation, phantom)
    assert "built-in phantom" not in render_report(None, evaluation, prepared.config)


def test_other_settings_are_reported(evaluation, prepared):
    message = "are not the ones the model was trained with"
    other = prepared.config.with_values({"train.epochs": 3})
    assert message in render_report(None, evaluation, other)
    same = prepared.config.with_values({"data.source": "phantom", "data.root": None})
    assert message not in render_report(None, evaluation, same)


def test_other_slices_are_reported(evaluation, prepared):
    message = "are not the ones the model was trained on"
    assert message in render_report(None, evaluation, prepared.config)
    same = dataclasses.replace(evaluation, fingerprint=evaluation.manifest.dataset)
    assert message not in render_report(None, same, prepared.config)


def test_names_are_text_and_never_markup(evaluation, prepared):
    first = dataclasses.replace(evaluation.patients[0], patient="<script>alert(1)</script>")
    marked = dataclasses.replace(evaluation, patients=(first, *evaluation.patients[1:]))
    html = render_report(None, marked, prepared.config)
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_split_without_empty_slices_says_so(prepared, thresholding, tmp_path):
    config, dataset = prepared.config, prepared.dataset
    full = Dataset(
        dataset.root, dataset.select("valid"), dataset.fingerprint, threshold_encoding(127)
    )
    scored = evaluate(
        thresholding,
        full,
        "valid",
        config.data,
        config.predict,
        LocalStorage(tmp_path),
    )
    html = render_report(None, scored, config)
    assert "every slice has foreground" in html
    assert "Through the best patient" not in html
