import json
import sys

import keras
import numpy as np

from benchmarks import (
    augmentation,
    emptied,
    gate_pays,
    growth,
    input_path,
    int8,
    judges,
    latency,
    meanings,
    settings,
    start,
    waterbirds,
)
from cdc_keras.choices import AUGMENTATIONS
from cdc_keras.data.pipeline import scale
from cdc_keras.data.scenes import draw_scenes, render


def test_the_input_path_benchmark_prints_its_table_and_saves_its_numbers(tmp_path, monkeypatch, capsys):
    out = tmp_path / "input_path.json"
    monkeypatch.setattr(sys, "argv", ["input_path", "--images=256", "--rounds=1", f"--out={out}"])
    input_path.main()
    printed = capsys.readouterr().out
    saved = json.loads(out.read_text())
    rows = [
        line
        for line in printed.splitlines()
        if line.startswith("| ") and "images/s (median)" not in line and "| ---" not in line
    ]
    assert len(rows) == len(saved["images_per_second"]) + len(saved["augmentations"])
    assert len(saved["images_per_second"]) == 4
    for kind in (*AUGMENTATIONS, "KerasCV's RandAugment layer"):
        rate = saved["augmentations"][kind][0]
        assert f"| {kind} | {rate:,.0f} | {1e6 / rate:,.0f} |" in printed
    assert f"bar 5.0x, measured {saved['measured']:.1f}x" in printed


def test_a_setting_is_compared_with_the_default_round_by_round():
    rates = {setting: [100.0, 200.0, 300.0] for setting in settings.SETTINGS}
    rates["jit_compile"] = [50.0, 200.0, 900.0]  # half, equal, three times: the middle one counts
    rates["oneDNN off"] = [25.0, 50.0, 75.0]
    found = settings.ratios(rates)
    assert found[settings.DEFAULT] == found["jit_compile"] == 1.0 and found["oneDNN off"] == 0.25
    assert "| oneDNN off | 0.25 |" in settings.table({"resnet20": rates})


def test_a_start_is_compared_with_that_of_keras_round_by_round():
    lines = start.table({start.ALONE: [1.0, 2.0, 4.0], "a command": [0.5, 2.0, 8.0]})
    assert f"| {start.ALONE} | 2.0 | 1.00 |" in lines and "| a command | 2.0 | 1.00 |" in lines
    assert "| a command | 3.0 | 1.50 |" in start.table({start.ALONE: [2.0], "a command": [3.0]})


def test_the_best_of_our_formats_is_compared_with_the_best_of_the_peers_round_by_round():
    times = {
        "saved_model": [2, 3, 4],
        "one_thread": [8, 8, 8],
        "litert": [3, 1, 5],
        "onnx": [9, 9, 9],
        "openvino": [1, 2, 4],
        "torch": [4, 4, 2],
        "openvino_bf16": [0.5, 0.5, 0.5],  # no peer
    }
    times = {side: [(0.001 * ms, 0.01 * ms) for ms in values] for side, values in times.items()}
    gated = {side: values for side, values in times.items() if side != "torch"}
    lines = latency.table({"plain": {1: times}, "gated": {64: gated}})
    cells = "3.00 (30.00) | 8.00 (80.00) | 9.00 (90.00) | 3.00 (30.00) | 2.00 (20.00)"
    assert f"| plain | 1 | {cells} | 4.00 (40.00) | 0.50 (5.00) | 2.00 | NO |" in lines  # 2/1, 1/2 and 4/2
    assert f"| gated | 64 | {cells} |  | 0.50 (5.00) | 1.00 | yes |" in lines  # 2/1, 1/2 and 4/4


def test_a_gate_is_compared_with_every_arm_seed_by_seed():
    top1 = {
        "plain": [0.5, 0.6],
        gate_pays.OWN: [0.7, 0.7],
        "the same, T and V of another image": [0.6, 0.6],
    }
    records = [
        {
            "arm": arm,
            "regime": "few labels",
            "seed": seed,
            "top1": value,
            "taught": gate_pays.OTHERS,
            "m_iou": 0.5 + 0.1 * seed,
            "m_iou_of_another": 0.3,
            "hardware": "2 CPU cores",
            "commit": "abc",
        }
        for arm, values in top1.items()
        for seed, value in enumerate(values, 1)
    ]
    text = gate_pays.table(records)
    # Of two seeds half an interval is 12.706 standard errors: of 50 and 60, 63.5 points.
    assert "| plain |  | 55.0 ± 63.5 | +15.0 ± 63.5 |" in text
    assert "| gate, start from V | other images | 70.0 ± 0.0 |  |" in text
    # The same difference with both seeds is beyond chance, that of 10 and 20 points is not.
    assert "| the same, T and V of another image | other images | 60.0 ± 0.0 | +10.0 ± 0.0 \\* |" in text
    assert "\\* p below 0.05, corrected for all 2 differences by Holm's method." in text
    assert "few labels: 0.65 ± 0.64 (M of another image 0.30 ± 0.00)" in text and "Seeds 1, 2." in text
    other = [record | {"regime": "telltale backgrounds (0.8)"} for record in records if record["seed"] == 1]
    assert "Seeds of few labels: 1, 2; of telltale backgrounds (0.8): 1." in gate_pays.table([*records, *other])


def test_what_audits_of_several_seeds_found_is_averaged():
    probes = {"linear": 0.0, "knn": 0.01, "mlp": 0.02, "conv": 0.05}

    def record(seed, shift):
        findings = [
            {"target": target, "features": features, "reader": reader, "accuracy": base + shift + more}
            for target, base in (("category", 0.1), ("texture", 0.8), ("hue", 0.7))
            for features in ("context", "cgm", "pixels")
            for reader, more in probes.items()
        ]
        scene = {name: {"mean": value} for name, value in zip(emptied.SCENES, (0.05, 0.7, 0.4), strict=True)}
        return {
            "seed": seed,
            "findings": findings,
            "reconstruction_mse": {"context": {"mean": 0.04}, "cgm": {"mean": 0.05}},
            "scenes": {"context": scene, "cgm": scene},
            "judged": dict.fromkeys(("context", "cgm"), dict(zip(judges.DECODED, (0.92, 0.9, 0.03), strict=True))),
            "probe_images": 20000,
            "scored_images": 2000,
            "precision": "mixed_bfloat16",
            "hardware": f"{2 - seed} CPU cores",
            "hours": 0.25 + seed,
            "commit": "abc",
        }

    text = emptied.table([record(0, 0.0), record(1, 0.02)])
    # Half an interval of two seeds is 12.706 standard errors, here of 1 point.
    assert "| category, by conv | 16.0% ± 12.7% | 16.0% ± 12.7% | 16.0% ± 12.7% |" in text
    assert "| texture, by the strongest probe | 86.0% ± 12.7% |" in text
    assert "| reconstruction MSE | 0.040 ± 0.000 | 0.050 ± 0.000 |  |" in text
    assert "| decoded under y', seen as y' | 90.0% ± 0.0% |" in text
    assert "28 epochs in mixed_bfloat16; 15 minutes on 2 CPU cores; 75 minutes on 1 CPU cores; other" in text
    assert "| category, by conv | 15.0% |" in emptied.table([record(0, 0.0)])


def test_the_recipe_is_that_of_its_flagfiles():
    config = emptied.recipe(seed=2)
    assert (config.seed, config.dataset, config.conditioning) == (2, "shapes", "film")
    assert 0 < config.decoder_epochs < config.epochs == emptied.EPOCHS


class Painter:
    """Stands for a `Disentangler` whose T is the picture, and whose decoder turns crescents by half a circle."""

    def __init__(self):
        self.encoder = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Identity()])


def test_the_turn_between_two_categories_is_found(monkeypatch):
    def errors_of(disentangler, truth, context, under):
        labels, foregrounds, backgrounds = draw_scenes(np.random.default_rng(meanings.SEED), 60, background_bias=0.0)
        half_turn = np.where(
            (labels == meanings.CRESCENT) != (under == meanings.CRESCENT), np.float32(np.pi), np.float32(0)
        )
        shown = foregrounds | {"rotation": foregrounds["rotation"] + half_turn}
        painted = render(under, shown, backgrounds, np.random.default_rng(meanings.SEED), image_size=32).images
        return ((scale(truth) - scale(painted)) ** 2).numpy().mean(axis=(1, 2, 3))

    monkeypatch.setattr(meanings.decoding, "reconstruction_errors", errors_of)
    plain, turned, degrees = meanings.by_pair(*meanings.errors(Painter(), scenes=60, turns=4))
    expected = np.zeros((10, 10))
    expected[meanings.CRESCENT] = expected[:, meanings.CRESCENT] = -180
    expected[meanings.CRESCENT, meanings.CRESCENT] = 0
    np.testing.assert_array_equal(degrees, expected)
    assert turned.max() < 1e-6 and plain[meanings.CRESCENT, 0] > 0.02
    record = {"error": plain, "error_when_turned": turned, "degrees": degrees}
    text = meanings.table(record | {"extractor": "zoo:shapes", "scenes": 60, "hardware": "CPU", "commit": "c"})
    assert "| another: all other pairs | 0.000 | 0.000 | 0° |" in text
    assert "| 0.000 | 180° |" in text


def test_what_8_bits_lose_is_set_beside_the_bar():
    models = {
        "a": {"litert": {"top1": 0.5, "bytes": 2**21}, "litert_int8": {"top1": 0.496, "bytes": 2**19}},
        "b": {"litert": {"top1": 0.5, "bytes": 2**21}, "litert_int8": {"top1": 0.49, "bytes": 2**19}},
    }
    text = int8.table({"models": models, "images": 1000, "hardware": "CPU", "commit": "c"})
    assert "| a | 50.00% | 49.60% | +0.40 | 2.00 | 0.50 |" in text and "1 of 2 models meet it" in text


def test_a_judge_learns_from_images_each_blurred_by_another_amount():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(40, 16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(judges.softened(images, 1, blur=0, noise=0), images)
    blurred = judges.softened(images, 1, noise=0)
    np.testing.assert_array_equal(blurred, judges.softened(images, 1, noise=0))
    left = blurred.astype(float).std(axis=(1, 2, 3)) / images.astype(float).std(axis=(1, 2, 3))
    assert left.max() > 0.98 and left.min() < 0.5  # from hardly to over a pixel
    noise = judges.softened(np.full_like(images, 128), 1, blur=0).astype(float).std(axis=(1, 2, 3)) / 255
    assert 0 <= noise.min() < 0.02 and 0.08 < noise.max() < 0.11


def test_what_judges_see_is_shown_kind_by_kind():
    kinds = {judges.SHARP: (0.5, 0.7), judges.SOFTENED: (0.9, 0.9)}
    found = [
        {"kind": kind, "seed": seed, "seen": {"reconstructions": value}}
        for kind, values in kinds.items()
        for seed, value in enumerate(values, 1)
    ]
    about = {"extractor": "zoo:shapes", "scenes": 10, "environment": {"hardware": "CPU", "commit": "c"}}
    text = judges.table({"judges": found} | about)
    assert "| reconstructions | 60.0 ± 127.1% | 90.0 ± 0.0% |" in text and "seeds 1, 2," in text


def test_growth_is_set_beside_what_is_expected_of_it():
    points = {str(n): {"step": [0.01 * n], "start": [0.5], "mib": 100 + n} for n in (32, 224)}
    text = growth.table({"side of an image": {"extractor": points}})
    assert "| side of an image | 32 to 224 | extractor | 320 to 2,240 | 7.00 | 49 | 0.50 to 0.50 | 132 to 324 |" in text
    assert len(growth.figure({what: {"x": points} for what in growth.GROWTHS}).axes) == len(growth.GROWTHS)


def test_augmentations_are_compared_with_the_default_seed_by_seed():
    top1 = {variant: (0.7, 0.8) for variant in augmentation.VARIANTS} | {"cutmix": (0.72, 0.82)}
    runs = [
        {
            "variant": variant,
            "seed": seed,
            "top1": value,
            "last": {"top1": 0.9},
            "settings": {"precision": "float32"},
            "hardware": "CPU",
            "commit": "c",
        }
        for variant, values in top1.items()
        for seed, value in enumerate(values)
    ]
    text = augmentation.table(runs)
    # Of two seeds half an interval is 12.706 standard errors, here of 5 points: 63.5 points.
    assert "| cutmix | 77.0 ± 63.5 | +2.0 ± 0.0 | 90.0 ± 0.0 |" in text
    assert f"| {augmentation.DEFAULT} | 75.0 ± 63.5 |  | 90.0 ± 0.0 |" in text


def test_networks_on_waterbirds_are_compared_by_their_worst_group_seed_by_seed():
    def record(arm, seed, worst):
        return {
            "arm": arm,
            "seed": seed,
            "top1": 0.7,
            "groups": {"worst_group": {"top1": worst}},
            "backgrounds": {"gap": 0.15},
            "iou": {"M": 0.9, "Grad-CAM, plain": 0.25},
            "iou_of_another": {"M": 0.8, "Grad-CAM, plain": 0.2},
            "hardware": "CPU",
            "commit": "c",
        }

    records = [record("plain", 1, 0.3), record("plain", 2, 0.5), record(waterbirds.OWN, 1, 0.4)]
    records.append(record(waterbirds.OWN, 2, 0.6))
    text = waterbirds.table(records)
    # Of two seeds half an interval is 12.706 standard errors: of 30 and 50, 127.1 points.
    assert "| plain | 2 | 40.0 ± 127.1 | 70.0 ± 0.0 | 15.0 ± 0.0 | 25.0 ± 0.0 | 20.0 ± 0.0 | +10.0 ± 0.0 |" in text
    assert "pretrained on ImageNet* |  | *86.7* | *93.3* |" in text and "R alone" not in text
