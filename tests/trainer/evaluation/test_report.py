import dataclasses
from html.parser import HTMLParser

import pytest

from contract.bundle import ParentBundle
from contract.config import Config
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


def render(
    evaluation: Evaluation,
    config: Config,
    run: LocalStorage | None = None,
    *,
    is_phantom: bool = False,
) -> str:
    return render_report(run, evaluation, config, is_phantom=is_phantom)


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
    html = render(evaluation, prepared.config, run)
    links = Links(html)
    assert len(links.addresses) == 9
    assert all(address.startswith("data:image/png;base64,") for address in links.addresses)
    assert "script" not in links.tags
    assert "link" not in links.tags
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_the_report_names_its_figures_and_their_origin(evaluation, prepared):
    html = render(evaluation, prepared.config)
    assert "not a medical device" in html
    for text in ("0.550", "± 0.512", "undefined for 2", "invented", "quiet"):
        assert text in html
    manifest = evaluation.manifest
    for text in (manifest.fingerprint, manifest.commit, manifest.machine, evaluation.bundle):
        assert text in html
    assert evaluation.host_info["python"] in html
    assert "learning_rate = 0.002" in html
    assert "2 of 5 patients and 2 of 6 slices have no foreground" in html
    assert "both masks are empty in 1 patient, only the ground truth in 1, only the pred" in html
    assert "The spacing of the slices is unknown" in html
    assert "train 3 patients, 4 slices; valid 1 patient, 1 slice; test 5 patients, 6" in html
    assert "Expected and maximum calibration error" in html
    assert "not empty in 1 of these patients and 1 of these slices" in html


def test_the_worst_patient_is_met_first(evaluation, prepared):
    html = render(evaluation, prepared.config)
    assert html.index("<td>missed") < html.index("<td>half") < html.index("<td>quiet")


def test_the_curves_are_shown_where_the_run_is_available(evaluation, run, prepared):
    assert "Loss of each epoch" in render(evaluation, prepared.config, run)
    assert "<h2>Training</h2>" not in render(evaluation, prepared.config)


def test_a_phantom_is_called_one(evaluation, prepared):
    assert "built-in phantom" in render(evaluation, prepared.config, is_phantom=True)
    # The bundle may be that of a phantom, and the slices of a comparison another's.
    phantom = prepared.config.with_values({"data.source": "phantom", "data.root": None})
    assert "built-in phantom" not in render(evaluation, phantom)


def test_other_settings_are_named(evaluation, prepared):
    message = "are not the ones the model was trained with"
    trained = prepared.config.with_values({"data.source": "phantom", "data.root": None})
    other = trained.with_values({"train.epochs": 3, "train.dice_per_sample": True})
    names = "<code>train.dice_per_sample</code>, <code>train.epochs</code>"
    assert f"{message} (below): {names}." in render(evaluation, other)
    # The settings of an older bundle, whose fingerprint lacks the newest ones.
    older = evaluation.manifest.model_copy(update={"fingerprint": "000000000000"})
    text = evaluation.settings.replace("ema_decay", "# ema_decay")
    assert text != evaluation.settings
    old = dataclasses.replace(evaluation, manifest=older, settings=text)
    assert message not in render(old, trained)


def test_the_bundles_that_a_training_started_from_are_shown(evaluation, prepared):
    assert "Started from" not in render(evaluation, prepared.config)
    parent = ParentBundle(
        name="before",
        digest="0123456789abcdef",
        fingerprint="f",
        dataset="other-slices",
        patients={"train": ("p", "q"), "valid": ("r",)},
    )
    tuned = evaluation.manifest.model_copy(update={"parents": (parent,)})
    html = render(dataclasses.replace(evaluation, manifest=tuned), prepared.config)
    assert "before (bundle <code>sha256:0123456789ab</code>, train 2 patients, valid 1" in html


def test_other_slices_are_reported(evaluation, prepared):
    message = "are not the ones the model was trained on"
    assert message in render(evaluation, prepared.config)
    same = dataclasses.replace(evaluation, fingerprint=evaluation.manifest.dataset)
    assert message not in render(same, prepared.config)


def test_names_are_text_and_never_markup(evaluation, prepared):
    first = dataclasses.replace(evaluation.patients[0], patient="<script>alert(1)</script>")
    marked = dataclasses.replace(evaluation, patients=(first, *evaluation.patients[1:]))
    html = render(marked, prepared.config)
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
    html = render(scored, config)
    assert "every slice has foreground" in html
    assert "Through the best patient" not in html
