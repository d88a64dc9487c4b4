"""The tables: rows and numbers against the paper's, statistics against closed forms, and what becomes a run."""

import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from commands import run_command
from scipy import stats

from cdc_keras import zoo
from cdc_keras.choices import find_network
from cdc_keras.config import RunConfig
from cdc_keras.errors import UserError
from cdc_keras.gate.attach import attach
from cdc_keras.networks import autoencoder, registry
from cdc_keras.runs.folder import RunFolder
from cdc_keras.tables import assemble, schedule, systems
from cdc_keras.tables.gate_use import gate_use
from cdc_keras.tables.jobs import is_of, jobs_of, settings_of
from cdc_keras.tables.markdown import markdown
from cdc_keras.tables.paper import TABLES
from cdc_keras.tables.statistics import Summary, holm, paired, summary
from cdc_keras.tables.systems import CONTEXTS, MATCHED, SYSTEMS, Row, rows
from cdc_keras.tables.table_row import TableRow, read_rows, write_rows
from cdc_keras.tables.work import _Work, tables

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "results"
CLASSIFIER = RunConfig(task="classifier", dataset="cifar100", epochs=3)
EXTRACTOR = RunConfig(task="extractor", dataset="cifar100", epochs=2)
# What `tables` is asked for, but for the numbers and places: the flags' defaults, without corruptions.
SETTINGS = dict(
    dataset=None, data_dir=None, seeds=3, epochs=None, rows=[], networks=[], classifier_flags=None,
    extractor_flags=None, extractors="train", corrupted_images=0, at_once=None,
)  # fmt: skip


def jobs(found, **settings):
    common = {"seeds": (0,), "classifier": CLASSIFIER, "extractor": EXTRACTOR, "runs_dir": "runs", "folder": "c"}
    return {job.name.removeprefix("c/"): job for job in jobs_of(found, **common | settings)}


@pytest.mark.parametrize(("number", "count"), [(1, 10), (2, 18), (3, 14), (4, 21), (5, 16), (6, 8)])
def test_a_table_has_the_papers_rows_each_with_its_value(number, count):
    table = TABLES[number]
    of_paper = [(row.backbone, row.system) for row in rows(number) if row.system not in systems.CONTROLS]
    assert len(of_paper) == count and set(of_paper) == set(table.paper)
    assert all(set(values) == set(table.datasets) for values in table.paper.values())


def test_a_run_is_of_a_job_if_all_that_decides_its_numbers_is_the_same():
    taught = jobs(rows(3, wanted=("vgg13+at",)))
    job, teacher = taught["vgg13+at/seed0"], taught["wrn16_10+plain/seed0"]
    named = {f"c/{name}": job for name, job in taught.items()}
    run = table_row("vgg13+at", 0, (0.1, 0.2), config=job.config)
    assert not is_of(run, job, named, 0)  # without a teacher
    settings = settings_of(teacher.config.resolved(32))
    run = dataclasses.replace(run, teacher={"settings": settings})
    assert is_of(run, job, named, 0) and not is_of(run, job, named, 1000)
    other_teacher = {"settings": settings | {"network": "resnet8"}}
    assert not is_of(dataclasses.replace(run, teacher=other_teacher), job, named, 0)
    assert not is_of(dataclasses.replace(run, settings=run.settings | {"epochs": 4}), job, named, 0)
    # A setting that was added later had its default before.
    before = {name: value for name, value in run.settings.items() if name != "flip"}
    assert is_of(dataclasses.replace(run, settings=before), job, named, 0)

    gated = jobs(rows(2, wanted=("vgg13+ours",)), released=True)["vgg13+ours/seed0"]
    run = table_row("vgg13+ours", 0, (0.1, 0.2), config=gated.config)
    of_zoo = {"settings": {}, "sha256": zoo.info("cifar100").weights.sha256}
    assert is_of(dataclasses.replace(run, context=of_zoo), gated, {}, 0)
    assert not is_of(dataclasses.replace(run, context=of_zoo | {"sha256": "0"}), gated, {}, 0)
    folder = dataclasses.replace(CLASSIFIER, dataset="folder", data_dir="cats").resolved(32)
    assert settings_of(folder) != settings_of(dataclasses.replace(folder, data_dir="dogs"))


def test_runs_are_stored_one_a_line_and_a_damaged_file_is_named(tmp_path):
    runs = [table_row("vgg13+ru", seed, (0.1, 0.2)) for seed in (1, 0)]
    write_rows(tmp_path, runs)
    assert read_rows(tmp_path) == runs[::-1]
    assert len((tmp_path / "rows.json").read_text().splitlines()) == len(runs) + 2
    for damaged in ("[{", "[{}]", "[3]"):
        (tmp_path / "rows.json").write_text(damaged)
        with pytest.raises(UserError, match="rows.json cannot be read"):
            read_rows(tmp_path)
    assert read_rows(tmp_path / "nowhere") == []


def test_the_papers_gains_are_differences_of_its_values():
    assert assemble._paper(2, "cifar100", Row("vgg13", "ours")) == (75.81, 1.09)
    assert assemble._paper(4, "imagenet_resized/32x32", Row("resnet110", "se_ours")) == ((50.29, 75.17), 1.21)
    assert assemble._paper(2, "cifar100", Row("vgg13_slim", "ours")) == (None, 1.09)  # of the network it stands for
    assert assemble._paper(2, "cifar100", Row("vgg13", "wider")) == (None, None)
    assert assemble._paper(3, "cifar100", Row("vgg13", "at")) == (75.58, 0.86)
    assert assemble._paper(3, "cifar100", Row("vgg13_slim", "at")) == (None, None)  # its teacher is another


def test_every_row_of_every_table_can_be_built_or_waits_for_what_can():
    for number in TABLES:
        for row in rows(number):
            assert find_network(row.network)
            assert row.teacher is None or find_network(row.teacher)
            assert SYSTEMS[row.system].context in (None, *CONTEXTS)


@pytest.mark.parametrize(
    "backbone", [pytest.param(x, marks=pytest.mark.long) if x in ("vgg13", "vgg16") else x for x in MATCHED]
)
def test_a_matched_network_is_the_smallest_with_at_least_the_weights(backbone):
    plain, extractor = registry.build(backbone, 32, num_classes=100), autoencoder.encoder(32)
    frozen = sum(int(np.prod(v.shape)) for v in extractor.trainable_variables)
    gated = attach(plain, extractor, registry.sites(plain, 8, 16))

    def count(network):
        return sum(int(np.prod(v.shape)) for v in network.trainable_variables)

    for name, needed in zip(MATCHED[backbone], (count(gated), count(gated) + frozen), strict=True):
        family, number = name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :])
        smaller = f"{family}{number - (6 if family == 'resnet' else 1)}"
        assert count(registry.build(smaller, 32, num_classes=100)) < needed
        assert count(registry.build(name, 32, num_classes=100)) >= needed


def test_means_and_paired_intervals_are_those_of_the_textbook():
    found = summary([1.0, 2.0, 4.0])
    assert found.mean == pytest.approx(7 / 3) and found.std == pytest.approx(np.sqrt(7 / 3)) and found.n == 3
    assert found.interval == pytest.approx(4.303 * np.sqrt(7 / 3) / np.sqrt(3), rel=1e-4)
    assert summary([5.0]).interval is None and summary([]) is None
    difference = paired({0: 3.0, 1: 5.0, 7: 100.0}, {1: 4.0, 0: 1.0, 2: 0.0})  # seeds that both have
    assert (difference.mean, difference.n) == (1.5, 2)
    assert difference.std == pytest.approx(np.sqrt(0.5))


def test_the_quantiles_are_those_of_students_t():
    """Its distribution function at the quantile, by integrating the density."""
    from math import gamma, pi, sqrt

    for df in (1, 2, 3, 10, 30, 60):
        quantile = Summary(mean=0.0, std=sqrt(df + 1), n=df + 1).interval
        x = np.linspace(0, quantile, 200_001)
        density = gamma((df + 1) / 2) / (sqrt(df * pi) * gamma(df / 2)) * (1 + x**2 / df) ** (-(df + 1) / 2)
        assert 0.5 + np.trapezoid(density, x) == pytest.approx(0.975, abs=1e-6)


def test_p_values_are_those_of_scipys_paired_test_and_none_for_one_seed():
    ours, theirs = [3.0, 5.0, 4.5, 7.0], [2.5, 4.9, 4.6, 5.0]
    found = paired(dict(enumerate(ours)), dict(enumerate(theirs)))
    assert found.p_value == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-9)
    assert summary([1.0]).p_value is None and summary([0.0, 0.0]).p_value == 1 and summary([1.0, 1.0]).p_value == 0


def test_holms_correction_is_that_of_the_textbook():
    """Sorted, the smallest is multiplied by 4, the next by 3, and none is smaller than the one before or above 1."""
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )
    assert holm({"a": 0.9, "b": 0.6}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


def test_a_gain_is_corrected_for_the_rows_that_have_one():
    top1 = {"plain": (0.50, 0.60, 0.55), "ru": (0.51, 0.63, 0.57), "ours": (0.52, 0.61, 0.60), "without_ru": (0.5,)}
    found = [table_row(f"vgg13+{row}", s, (0.1, x)) for row, of in top1.items() for s, x in enumerate(of)]
    table = assemble.assemble(2, "cifar100", rows(2, networks=["vgg13"], wanted=tuple(top1)), found, recipe={})
    gains = {row["row"]: row["gains"]["last"] for row in table["rows"] if row.get("gains")}
    p = {name: gain["p"] for name, gain in gains.items() if "p" in gain}
    assert set(p) == {"vgg13+ru", "vgg13+ours"} and "p" not in gains["vgg13+without_ru"]  # one seed
    smaller, larger = sorted(p, key=p.get)
    assert gains[smaller]["p_holm"] == pytest.approx(2 * p[smaller], rel=0.01)
    assert gains[larger]["p_holm"] == pytest.approx(max(p[larger], 2 * p[smaller]), rel=0.01)
    (difference,) = (x["last"] for x in table["differences"] if x["minus"] == "vgg13+ru")
    assert difference["p_holm"] >= difference["p"] > 0


def test_contexts_and_teachers_are_trained_once_and_before_the_rows():
    found = jobs(rows(3, wanted=("at", "ours")), seeds=(0, 1))
    names = list(found)
    assert names.count("context-cdcgm") == 1 and names.count("wrn16_10+plain/seed0") == 1
    for name, job in found.items():
        assert all(names.index(need.removeprefix("c/")) < names.index(name) for need in job.needs)
    student = found["vgg13+at/seed1"]
    assert student.config.teacher == "runs/c/wrn16_10+plain/seed0" and student.config.seed == 1
    assert found["vgg13+ours/seed1"].config.extractor == "runs/c/context-cdcgm"


@pytest.mark.parametrize(("number", "dataset"), [(n, name) for n, table in TABLES.items() for name in table.datasets])
def test_every_row_of_the_papers_tables_is_a_valid_run_with_the_papers_flagfiles(number, dataset, tmp_path):
    work = _Work(number, tmp_path, None, False, **SETTINGS | {"dataset": dataset, "epochs": 20})
    assert {job.row for job in work.jobs.values()} >= set(rows(number))
    for job in work.jobs.values():
        config = job.config.resolved(job.config.image_size or 32)
        assert config.dataset == dataset and (job.row is None or config.epochs == 20)
    work.write()
    table = json.loads((tmp_path / dataset / f"table{number}.json").read_text())
    assert all(row["paper"] for row in table["rows"] if Row(*row["row"].split("+")).system not in systems.CONTROLS)


def test_too_few_epochs_for_the_recipe_are_told_before_anything_is_trained(tmp_path):
    with pytest.raises(UserError, match="a warm-up of 2 epochs does not fit before the first drop, at 30% of 6 epochs"):
        _Work(2, tmp_path, None, False, **SETTINGS | {"epochs": 6})
    _Work(2, tmp_path, None, False, **SETTINGS | {"epochs": 7})


def test_rows_are_chosen_by_system_or_by_name():
    assert [row.name for row in rows(2, wanted=("vgg16+ours", "plain"))] == ["vgg13+plain", "vgg16+plain", "vgg16+ours"]
    with pytest.raises(UserError, match="Table 2 has no row 'foo'; there are plain, without_ru"):
        rows(2, wanted=("foo",))


def table_row(row, seed, test, validation=(0.1, 0.2), config=CLASSIFIER, **more):
    settings = settings_of(dataclasses.replace(config, seed=seed).resolved(32))
    common = {
        "context": None,
        "teacher": None,
        "images_per_second": 100.0,
        "parameters": 10,
        "trainable_parameters": 9,
        "corrupted_images": 0,
        "corrupted": None,
        "backgrounds": None,
        "gate": None,
        "commits": ["abc"],
        "hardware": "2 CPU cores",
        "versions": {},
        "started": "2026-01-01T00:00:00Z",
        "train_images": 45_000,
        "hours": 0.1,
    }
    history = {"val_top1": list(validation), "test_top1": list(test), "test_top5": [0.5, 0.6]}
    return TableRow(row=row, settings=settings, history=history, **common | more)


def test_last_chosen_and_best_epochs_are_told_apart():
    scores = assemble.scores_of(table_row("vgg13+plain", 0, test=(0.3, 0.5, 0.4), validation=(0.9, 0.1, 0.2)))
    assert (scores["last"], scores["chosen"], scores["best"]) == (40.0, 30.0, 50.0)


def test_gains_are_paired_by_seed_with_our_own_plain_network():
    found = [table_row("vgg13+plain", s, (0.1, x)) for s, x in enumerate((0.50, 0.60))]
    found += [table_row("vgg13+ru", s, (0.1, x)) for s, x in enumerate((0.51, 0.63))]
    table = assemble.assemble(2, "cifar100", rows(2, wanted=("plain", "ru")), found, recipe={"epochs": 3})
    gain = next(row for row in table["rows"] if row["row"] == "vgg13+ru")["gains"]["last"]
    p = 0.295  # of t = 2 with one degree of freedom: 1 - 2 atan(2) / pi
    assert gain == {"mean": 2.0, "std": pytest.approx(1.414), "n": 2, "half": pytest.approx(12.706, abs=0.001)} | {
        "p": p,
        "p_holm": p,
    }
    text = markdown(table)
    assert "| vgg13 + RU | 2 | 20.00 ± 0.00 | 57.00 ± 8.48 |" in text
    assert "+2.00 (-10.71 to +14.71), p 0.29 | 75.03 | +0.31 |" in text
    assert "Rows of n = 0 have not been trained yet." in text and "| vgg16 + RU | 0 |" in text
    trained = assemble.assemble(
        2, "cifar100", rows(2, networks=["vgg13"], wanted=("plain", "ru")), found, recipe={"epochs": 3}
    )
    assert "n = 0" not in markdown(trained)


def test_a_table_says_what_its_numbers_do_not():
    contexts = {"vgg13_slim+ours": 0.001, "vgg13_slim+without_rl": 0.0}
    found = [table_row("vgg13_slim+plain", 0, (0.1, 0.5), hardware="1 x H100")]
    for row, weight in contexts.items():
        settings = settings_of(dataclasses.replace(EXTRACTOR, repulsive_weight=weight).resolved(32))
        held_out = settings | {"validation_fraction": 0.0}
        found.append(table_row(row, 0, (0.1, 0.6), context={"sha256": f"{weight}", "settings": held_out}))
    asked = rows(2, networks=["vgg13_slim"], wanted=("plain", "ours", "without_rl"))
    recipe = {"epochs": 3, "validation_fraction": 0.1}

    def say(found):
        return markdown(assemble.assemble(2, "cifar100", asked, found, recipe=recipe))

    text = say(found)
    assert "Beside vgg13_slim its gains are those of vgg13." in text
    assert "batch 32, weights 0.0, repulsive_weight 0.0: vgg13_slim + Ours w/o RL." in text
    assert "The contexts were trained on images that are held out here" in text
    assert "| 9 | 100 | 1 x H100 |" in text and "| 9 | 100 | 2 CPU cores |" in text
    unseen = say(found[:1])
    assert "were trained on images that are held out" not in unseen and "| 9 | 100 |\n" in unseen


def test_ours_is_set_beside_every_row_and_blocks_with_a_gate_beside_those_without():
    top1 = {"vgg13+plain": 0.5, "vgg13+se": 0.6, "vgg13+ours": 0.55, "vgg13+se_ours": 0.7, "vgg16+ours": 0.9}
    found = [table_row(row, 0, (0.1, x)) for row, x in top1.items()]
    asked = rows(3, networks=("vgg13", "vgg16"), wanted=("plain", "se", "ours", "se_ours"))
    table = assemble.assemble(3, "cifar100", asked, found, recipe={"epochs": 3})
    differences = {(x["row"], x["minus"]): x["last"]["mean"] for x in table["differences"]}
    ours, with_se = "vgg13+ours", "vgg13+se_ours"
    assert differences == {
        (ours, "vgg13+plain"): 5.0,
        (ours, "vgg13+se"): -5.0,
        (ours, with_se): -15.0,
        (with_se, "vgg13+se"): 10.0,
    }
    assert "| vgg13 + SE + Ours | vgg13 + SE | +10.00 | 1 |" in markdown(table)


def test_a_stored_run_is_not_trained_again_unless_the_recipe_differs(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        "cdc_keras.tables.schedule.run", lambda jobs, *a, **k: started.append([j.name for j in jobs]) or {}
    )
    (tmp_path / "c.flags").write_text("--task=classifier\n--dataset=cifar100\n--epochs=3\n--warmup_epochs=0\n")
    (tmp_path / "e.flags").write_text("--task=extractor\n--dataset=cifar100\n--epochs=2\n")
    asked = dataclasses.replace(CLASSIFIER, network="vgg13", warmup_epochs=0.0, test_every_epoch=True)
    networks_of = [dataclasses.replace(asked, epochs=epochs) for epochs in (3, 4)]
    stored = [table_row("vgg13+plain", s, (0.1, 0.2), config=c) for s, c in enumerate(networks_of)]
    write_rows(tmp_path, stored)
    flags = {"classifier_flags": tmp_path / "c.flags", "extractor_flags": tmp_path / "e.flags"}
    settings = SETTINGS | flags | {"seeds": 2, "rows": ["vgg13+plain"]}
    assert tables([2], runs_dir=tmp_path / "runs", out=tmp_path, **settings) == {}
    assert started == [["cifar100/vgg13+plain/seed1"]]
    assert len(read_rows(tmp_path)) == 2  # what is of another recipe stays
    (row,) = json.loads((tmp_path / "table2.json").read_text())["rows"]
    assert row["seeds"] == [0]
    # Of a row that was not asked for, what is on record stays in the table.
    assert tables([2], runs_dir=tmp_path / "runs", out=tmp_path, **settings | {"rows": ["vgg13+ru"]}) == {}
    assert started[1:] == [["cifar100/vgg13+ru/seed0", "cifar100/vgg13+ru/seed1"]]
    seeds = {row["row"]: row["seeds"] for row in json.loads((tmp_path / "table2.json").read_text())["rows"]}
    assert seeds == {"vgg13+plain": [0], "vgg13+ru": []}
    with pytest.raises(UserError, match="classifier_flags is a flagfile of task classifier on cifar100, but says extr"):
        tables([2], runs_dir=tmp_path, **settings | {"classifier_flags": tmp_path / "e.flags"})


def test_what_a_gate_does_is_told_from_what_it_would_do_without_its_parts():
    from cdc_keras.data.dataset import Split

    rng = np.random.default_rng(0)
    split = Split(rng.integers(256, size=(60, 32, 32, 3), dtype=np.uint8), rng.integers(10, size=60))
    images = keras.Input((32, 32, 3))
    context = keras.Model(images, keras.layers.Conv2D(3, 4, strides=4)(images))  # T (B, 8, 8, 3)
    x = images
    for site in ("site16", "site8"):
        x = keras.layers.ReLU()(keras.layers.Conv2D(6, 3, strides=2, padding="same", name=site)(x))
    plain = keras.Model(images, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    gated = attach(plain, context, ["site16", "site8"], init="centred")
    found = gate_use(gated, split)
    # At its start it is the identity: nothing is lost without any of its parts.
    assert len(set(found["top1"].values())) == 1
    assert found["m"] == {"mean": 1.0, "within": 0.0, "across": 0.0, "saturated": 0.0}
    assert all(c["mean"] == 1.0 and c["within"] == 0.0 for c in found["c"].values()) and len(found["c"]) == 2
    assert list(found["residual"].values()) == [0.0, 0.0]
    assert gate_use(plain, split) is None

    for layer in gated.layers:  # R on: without it the network says something else
        if layer.name.endswith("_r_conv3"):
            layer.kernel.assign(rng.normal(0, 1, layer.kernel.shape))
    gated.get_layer("gate_l1_conv2_bn").beta.assign([9.0])
    says = np.argmax(gated.predict(np.float32(split.images) / 127.5 - 1, verbose=0), axis=-1)
    moved = gate_use(gated, Split(split.images, says))
    assert moved["top1"]["as_is"] == 1.0 and moved["top1"]["r_off"] < 1.0
    assert moved["top1"]["m_constant"] == moved["top1"]["as_is"]
    assert moved["m"]["saturated"] == 1.0 and all(moved["residual"].values())


@pytest.mark.slow
def test_a_smoke_test_trains_and_scores_rows_in_processes_of_their_own_and_goes_on_where_it_was(tmp_path, capsys):
    run_command("tables", "--smoke", "--table=2", "--rows=vgg13+plain", f"--runs_dir={tmp_path}")
    folder = tmp_path / "smoke32"
    assert f"Table 2 is in {folder / 'table2.md'}\n" in capsys.readouterr().out and (folder / "table2.md").is_file()
    first = (folder / "vgg13+plain" / "seed0" / "row.json").read_text()
    (folder / "rows.json").unlink()  # the run is there: it is neither trained nor scored again
    settings = SETTINGS | {"rows": ["vgg13+plain"]}
    assert tables([2], runs_dir=tmp_path, smoke=True, **settings) == {}
    assert (folder / "vgg13+plain" / "seed0" / "row.json").read_text() == first
    table = json.loads((folder / "table2.json").read_text())
    assert [row["seeds"] for row in table["rows"]] == [[0]] and table["smoke"]
    assert "smoke test" in (folder / "table2.md").read_text()
    assert "--network=vgg13_w4" in (folder / "vgg13+plain" / "seed0.flags").read_text()


def test_processes_that_share_jobs_get_about_as_many_each():
    assert schedule._fair([0, 1, 2], set(), 2) == [0, 2]
    assert schedule._fair([1], {0, 2}, 2) == [1]
    assert schedule._fair(list(range(6)), {"a", "b"}, 2) == [0, 2, 4]  # one of two is free: the other gets the rest
    assert schedule._fair([1, 3, 5], {0, 2, 4}, 2) == [1, 3, 5]


def test_what_fails_is_named_with_its_reason_and_takes_what_needs_it_along(tmp_path):
    found = jobs(
        rows(2, wanted=("vgg13+plain", "vgg13+ours")),
        seeds=(0,),
        classifier=dataclasses.replace(CLASSIFIER, data_dir=str(tmp_path / "nothing")),
        extractor=dataclasses.replace(EXTRACTOR, data_dir=str(tmp_path / "nothing")),
        runs_dir=tmp_path,
        folder="c",
    )
    failed = schedule.run(list(found.values()), tmp_path, lambda *of: pytest.fail("nothing can be done"))
    assert set(failed) == {"c/context-cdcgm", "c/vgg13+plain/seed0", "c/vgg13+ours/seed0"}
    assert "exit code 1: " in failed["c/context-cdcgm"] and "nothing" in failed["c/context-cdcgm"]
    assert failed["c/vgg13+ours/seed0"] == "needs c/context-cdcgm"


def finish(job, folder):
    """Leaves a finished and scored run of a job in its folder."""
    run = RunFolder(folder / job.name)
    run.create(job.config.resolved(32))
    run.note(finished=True)
    (run.path / "row.json").write_text(table_row(job.row.name, 0, (0.1, 0.2), config=job.config).to_json())


def test_a_run_of_other_settings_is_not_taken_for_the_one_that_is_asked_for(tmp_path):
    (job,) = jobs(rows(2, wanted=("vgg13+plain",))).values()
    finish(dataclasses.replace(job, config=dataclasses.replace(job.config, epochs=7)), tmp_path)
    assert not schedule._is_done(job, tmp_path, 0)
    finish(job, tmp_path / "here")
    assert schedule._is_done(job, tmp_path / "here", 0)
    assert not schedule._is_done(job, tmp_path / "here", 1000)  # scored, but not on these


def test_one_that_fails_takes_none_along_that_share_its_process(tmp_path, monkeypatch, capsys):
    def start(batch, folder, place, corrupted_images):
        """Does what comes before a job that fails, and fails if there is one."""
        log, code = tmp_path / "log.txt", 0
        for job in batch:
            if code := int("+ru" in job.name):
                break
            finish(job, folder)
        command = [sys.executable, "-c", f"import sys; sys.exit('error: it is ill:\\n  rest' if {code} else 0)"]
        with log.open("w") as out:
            return schedule._Worker(subprocess.Popen(command, stderr=out), batch, place, log)

    monkeypatch.setattr(schedule, "_start", start)
    done = []
    failed = schedule.run(
        list(jobs(rows(2, wanted=("plain", "ru"))).values()),
        tmp_path,
        lambda job, run: done.append(job.name),
        at_once=1,
        share=True,
    )
    assert set(failed) == {"c/vgg13+ru/seed0", "c/vgg16+ru/seed0"}
    assert all("exit code 1: it is ill: rest (all of it" in why for why in failed.values())
    assert done == ["c/vgg13+plain/seed0", "c/vgg16+plain/seed0"]
    printed = capsys.readouterr().err
    assert re.search(r"^[01] of 4 runs: (0|25)\.0/100 %, ", printed, re.M)
    assert "c/vgg13+ru/seed0: exit code 1: it is ill: rest" in printed


def test_no_process_is_left_behind_by_an_error(tmp_path, monkeypatch):
    def start(batch, folder, place, corrupted_images):
        (job,) = batch
        if "vgg13" in job.name:
            finish(job, folder)
        seconds = 0 if "vgg13" in job.name else 600
        started.append(subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"]))
        return schedule._Worker(started[-1], batch, place, tmp_path / "log.txt")

    def done(job, run):
        raise UserError("the disk is full")

    started = []
    monkeypatch.setattr(schedule, "_start", start)
    monkeypatch.setattr(schedule, "places", lambda count: [{}, {}])
    with pytest.raises(UserError, match="the disk is full"):
        schedule.run(list(jobs(rows(2, wanted=("plain",))).values()), tmp_path, done)
    assert [process.poll() is not None for process in started] == [True, True]


def test_tables_with_a_row_in_common_train_it_once_and_both_have_it(tmp_path, monkeypatch):
    def run(jobs, runs_dir, done, **settings):
        for job in jobs:
            done(job, table_row(job.row.name, job.config.seed, (0.1, 0.2), config=job.config))
        started.extend(job.name for job in jobs)
        return {}

    started = []
    monkeypatch.setattr("cdc_keras.tables.schedule.run", run)
    settings = SETTINGS | {"seeds": 1, "rows": ["vgg13+plain"]}
    assert tables([1, 2, 3], runs_dir=tmp_path / "runs", out=tmp_path, **settings) == {}
    assert started == ["cifar100/vgg13+plain/seed0"]
    assert len(read_rows(tmp_path)) == 1
    for number in (1, 2, 3):
        assert [row["seeds"] for row in json.loads((tmp_path / f"table{number}.json").read_text())["rows"]] == [[0]]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/table*.json")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_published_table_is_what_its_runs_say(path):
    table, runs = json.loads(path.read_text()), read_rows(path.parent)
    shown = [Row(*row["row"].split("+")) for row in table["rows"]]
    made = assemble.assemble(table["table"], table["dataset"], shown, runs, recipe=table["recipe"])
    assert json.loads(json.dumps(made)) == table
    assert markdown(table) == path.with_suffix(".md").read_text()
