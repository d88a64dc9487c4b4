"""report.html and the strips of image files, by their command."""

import base64
import dataclasses
import html.parser
import json
import pathlib
import shutil

import numpy as np
import pytest
import serving
from commands import refusal, run_command
from exports import exported_extractor  # noqa: F401
from PIL import Image
from tiny_runs import CLASSIFIER, EXTRACTOR

from cdc_keras.data import load as data
from cdc_keras.errors import UserError
from cdc_keras.export.export import export
from cdc_keras.report import blocks
from cdc_keras.report import page as report
from cdc_keras.report.blocks import Section
from cdc_keras.runs import evaluation
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.training import train
from cdc_keras.visualize import figures as visualize
from cdc_keras.visualize import maps as maps_of
from cdc_keras.zoo import findings, strict

ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("few_test_images")


class Page(html.parser.HTMLParser):
    """What a browser would see: headings, cells of tables, pictures, and what is not closed."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.cells, self.pictures, self.open, self.links = [], [], [], [], []
        self.anchors, self.items, self.paragraphs = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            kind, _, content = attributes["src"].partition("base64,")
            assert kind == "data:image/png;" and attributes["alt"]
            self.pictures.append(base64.b64decode(content))
        self.links += [attributes["href"]] if tag == "a" else []
        self.anchors += [attributes["id"]] if "id" in attributes else []
        assert not {"src", "href"} & set(attributes) or tag in ("img", "a")  # nothing is fetched
        self.open += [tag] if tag not in ("img", "meta") else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        kinds = {"h2": self.headings, "td": self.cells, "li": self.items, "p": self.paragraphs}
        if self.open and self.open[-1] in kinds:
            kinds[self.open[-1]].append(data)


@pytest.fixture(scope="module")
def runs(few_test_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    gated = dataclasses.replace(CLASSIFIER, extractor=str(folder / "extractor"))
    for name, config in (("extractor", EXTRACTOR), ("plain", CLASSIFIER), ("gated", gated)):
        train(config, folder / name, pictures=False)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def page(folder):
    found = Page((folder / "report.html").read_text())
    assert not found.open and all(picture.startswith(b"\x89PNG") for picture in found.pictures)
    assert found.links == [f"#{anchor}" for anchor in found.anchors] and len(found.links) == len(found.headings)
    return found


@pytest.mark.slow
def test_no_category_is_among_the_best_and_the_worst():
    best, worst = report.extremes(list(range(10))).values()
    assert (best, worst) == ([0, 1, 2], [9, 8, 7])
    assert list(report.extremes(list(range(5))).values()) == [[0, 1, 2], [4, 3]]
    assert report.extremes([4]) == {"Best categories": [4]}


def test_the_report_of_an_extractor(runs, capsys):
    assert not list((runs / "extractor/pictures").glob("*.png"))  # a run that was stopped may have old ones, or none
    run_command("report", f"--model={runs / 'extractor'}")
    assert f"written: {runs / 'extractor' / 'report.html'}" in capsys.readouterr().out
    found = page(runs / "extractor")
    titles = ["Run", "Curves", "Health", "Scores", "Reconstructions", "Swapped conditions", "Audit"]
    curves = len(visualize.curve_panels(RunFolder(runs / "extractor").rows()))
    assert found.headings == titles and len(found.pictures) == curves + 2 and curves > 5
    assert {"discriminator_accuracy", "lambda_fool", "fooling_gradient_norm", "repulsive_active"} <= set(found.cells)
    assert any("chance is 10.0%" in cell for cell in found.cells)


AUDIT = json.loads((ROOT / "zoo" / "shapes" / "preset.json").read_text())["audit"]


def test_the_audit_is_part_of_the_report_and_no_text_of_it_is_taken_for_html(runs):
    notes = ["<b>Two</b> notes & more.", "$x$ {{ 7 * 7 }}"]
    (runs / "extractor" / "audit.json").write_text(json.dumps({**AUDIT, "dataset": "shapes", "notes": notes}))
    report.report(runs / "extractor")
    content = page(runs / "extractor")
    audit = strict.parse(findings.Audit, AUDIT)
    head, rows = findings.table(audit.findings)
    assert rows and {cell for row in rows for cell in row if cell} <= set(content.cells)
    assert content.items == [*findings.remarks(audit), *notes]
    assert f"{findings.headline(audit)} {findings.introduction(audit)}" in content.paragraphs
    (runs / "extractor" / "audit.json").write_text(json.dumps({**AUDIT, "seed": "none"}))
    with pytest.raises(UserError, match="audit.seed is to be a whole number"):
        report.report(runs / "extractor")
    (runs / "extractor" / "audit.json").unlink()


def test_text_of_users_is_text():
    names = ["<script>alert(1)</script>", "$a$ \\ {{ x }} {% y %}", "two\nlines", "\"quoted\" & 'so'", "猫"]
    sections = [Section(name, [blocks.text(name), blocks.table([[name, 1]], (name, "n"))]) for name in names]
    content = Page(blocks.page(names[0], sections))
    assert content.headings == content.paragraphs == names and not content.open
    assert content.cells == [cell for name in names for cell in (name, "1")]


@pytest.mark.slow
def test_the_report_of_a_gated_classifier_beside_its_plain_one(runs):
    run_command("report", f"--model={runs / 'gated'}", f"--plain={runs / 'plain'}")
    found = page(runs / "gated")
    titles = ["Run", "Curves", "Scores", "Confusion", "Best categories", "Worst categories", "Localisation"]
    curves = len(visualize.curve_panels(RunFolder(runs / "gated").rows()))
    assert found.headings == titles and len(found.pictures) == curves + 3
    maps = [
        "M",
        "before the gate",
        "suppressed",
        "after R",
        "last features, gated",
        "last features, plain",
        "Grad-CAM, gated",
    ]
    at = found.cells.index("M")
    assert found.cells[at : at + 7 * len(maps) : 7] == maps
    assert all(0 <= float(cell) <= 1 for i in range(1, 7) for cell in found.cells[at + i : at + 7 * len(maps) : 7])
    masks = data.load_dataset(RunFolder(runs / "gated").config()).test.factors["mask"]
    flat = np.zeros(masks.shape)
    same = found.cells.index("a map that is the same everywhere")
    expected = [f"{of(flat, masks).mean():.3f}" for of in (maps_of.iou, maps_of.pointing, maps_of.energy) for _ in "ab"]
    assert found.cells[same + 1 : same + 7] == expected


def test_categories_without_test_images_are_neither_best_nor_worst(runs, monkeypatch):
    accuracy, drawn = np.array([np.nan, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, np.nan, np.nan]), []
    monkeypatch.setattr(report, "_accuracies", lambda *_: accuracy)
    strip = report._strips

    def note(class_names, split, classes, accuracy, networks):
        drawn.append(list(classes))
        return strip(class_names, split, classes, accuracy, networks)

    monkeypatch.setattr(report, "_strips", note)
    report.report(runs / "plain")
    assert drawn == [[7, 6, 5], [1, 2, 3]]


def test_the_report_builds_the_model_loads_the_data_and_scores_once(runs, monkeypatch):
    calls = []
    for name in ("load_trainer", "load_dataset", "score"):
        function = getattr(evaluation, name)

        def counted(*given, name=name, function=function, **named):
            calls.append(name)
            return function(*given, **named)

        monkeypatch.setattr(evaluation, name, counted)
    report.report(runs / "plain")
    assert sorted(calls) == ["load_dataset", "load_trainer", "score"]


def test_the_report_of_a_plain_classifier(runs):
    run_command("report", f"--model={runs / 'plain'}")
    found = page(runs / "plain")
    assert "resnet8, plain" in found.cells and "last features, plain" in found.cells and "M" not in found.cells


@pytest.fixture
def drawn(monkeypatch):
    figures = []
    monkeypatch.setattr(visualize, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def columns(figure):
    return [ax.get_title().replace("\n", " ") for ax in figure.axes if ax.get_title()]


@pytest.mark.parametrize("plain", [[], ["--plain=zoo:cifar100_resnet20"]])
def test_image_files_are_looked_at_by_a_record_of_the_zoo(plain, images, tmp_path, drawn):
    run_command(
        "report", "--model=zoo:cifar100_resnet20_gated", f"--images={images}", f"--out={tmp_path / 'x.png'}", *plain
    )
    (figure,) = drawn
    assert columns(figure)[:4] == ["input", "M, 0 to 1", "M, stretched", "before the gate"]
    assert ("last features, plain" in columns(figure)) == bool(plain) and "Grad-CAM, gated" in columns(figure)
    assert len(figure.axes) == 3 * len(columns(figure)) + 1  # a row for each image, and the scale of M


def test_bad_images_are_named_counted_and_left_out(images, tmp_path, drawn, capsys):
    for name in ("._0.png", "!.png", "a, b.png"):  # the first is hidden, so it is no image
        (tmp_path / name).write_bytes(b"no image")
    for file in images.glob("*.png"):
        shutil.copy(file, tmp_path)
    run_command("report", "--model=zoo:cifar100_resnet20", f"--images={tmp_path}", "--count=2")
    told = capsys.readouterr().err
    assert (
        f"image left out: {tmp_path / '!.png'} (no readable JPEG" in told
        and "._0" not in told
        and "1 of 3 images are left out" in told
    )
    quoted = f'--images="{tmp_path / "a, b.png"}",{tmp_path / "0.png"}'
    run_command("report", "--model=zoo:cifar100_resnet20", quoted)
    told = capsys.readouterr().err
    assert f"image left out: {tmp_path / 'a, b.png'}" in told and "1 of 2 images are left out" in told
    assert [sum(bool(ax.get_ylabel()) for ax in figure.axes) for figure in drawn] == [2, 1]


def test_a_run_and_what_was_exported_of_it_see_the_same(images, runs, tmp_path, drawn):
    first, second = images / "0.png", images / "1.png"
    model = export(runs / "gated", tmp_path / "model").folder
    run_command("report", f"--saved_model={model}", f"--images={first},{second}")
    run_command("report", f"--model={runs / 'gated'}", f"--images={first},{second}")
    exported, own = drawn
    assert columns(exported) == ["input", "M, 0 to 1", "M, stretched", "focus"]
    for title, other in (("M, 0 to 1", "M, 0 to 1"), ("focus", "last features, gated")):
        pair = [
            np.asarray(figure.axes[columns(figure).index(name)].images[0].get_array(), float)
            for figure, name in ((exported, title), (own, other))
        ]
        np.testing.assert_allclose(*pair, atol=1 if title == "focus" else 1e-5)  # grey levels, values of M
    assert exported.axes[0].get_ylabel() == own.axes[0].get_ylabel()


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "give either --model"),
        (["--model=zoo:cifar100_resnet20", "--saved_model=x"], "give either --model"),
        (["--model=zoo:cifar100_resnet20"], "say which images"),
        (["--model=zoo:cifar100_resnet20", "--images=nowhere.png"], "there is no image nowhere.png"),
        (["--model=zoo:cifar100_resnet20", "--images=EMPTY/empty"], "holds no image"),
        (["--model=zoo:cifar100_resnet20", "--images=EMPTY/bad.txt"], "none of 1 images can be read"),
        (["--model=zoo:cifar100", "--images=IMAGES"], "is a record of kind extractor; give one of kind classifier"),
        (["--model=zoo:cifar100_resnet20_gated", "--images=IMAGES", "--site=stem"], "no gate at stem; gated are"),
        (
            ["--model=zoo:cifar100_resnet20", "--images=IMAGES", "--out=nowhere/x.png"],
            "could not write nowhere/x.png: No such file or directory; make its folder first",
        ),
        (["--model=zoo:cifar100_resnet20", "--images=EMPTY/bomb.png"], "none of 1 images can be read"),
        (["--model=zoo:cifar100_resnet20", "--images=IMAGES", "--plain=zoo:cifar100_resnet20"], "are not such a pair"),
        (["--model=zoo:cifar100_resnet20", "--images=IMAGES", "--site=stem"], "has no gate to look into"),
        (["--saved_model=EMPTY", "--images=IMAGES"], "is no SavedModel"),
        (["--saved_model=EMPTY", "--images=IMAGES", "--plain=x"], "--plain does nothing for --saved_model"),
        (["--model=x", "--site=stem"], "--site does nothing for a report"),
        (["--model=x", "--images=IMAGES", "--data_dir=x"], "--data_dir does nothing with --images"),
        (["--model=nowhere"], "nowhere is no run folder"),
    ],
)
def test_bad_input_is_answered_with_one_sentence(arguments, sentence, images, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.txt").write_text("no image")
    (tmp_path / "bomb.png").write_bytes(serving.png_that_says(20_000, 20_000))
    monkeypatch.chdir(tmp_path)
    arguments = [x.replace("EMPTY", str(tmp_path)).replace("IMAGES", str(images)) for x in arguments]
    assert sentence in refusal("report", *arguments)
    assert [path.name for path in tmp_path.glob("*.png")] == ["bomb.png"]


def test_an_exported_extractor_explains_nothing(images, exported_extractor):  # noqa: F811
    refused = refusal("report", f"--saved_model={exported_extractor}", f"--images={images}")
    assert "has no signature explain" in refused
