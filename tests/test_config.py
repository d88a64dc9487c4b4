import dataclasses
import json
import pathlib

import pytest

from cdc_keras import flags
from cdc_keras.config import RunConfig
from cdc_keras.errors import UserError

CONFIGS = sorted(pathlib.Path("configs").rglob("*.flags"))


def parse(*arguments):
    return flags.config_from_flags(flags.parse(flags.train, arguments))


def test_a_config_survives_json():
    config = RunConfig(task="classifier", extractor="x", gate_sites=("a", "b"), fool_ramp_fraction=0.5, seed=3)
    assert RunConfig.from_json(config.to_json()) == config


def test_json_with_an_unknown_key_is_refused():
    with pytest.raises(UserError, match="\\['sead'\\] are no settings"):
        RunConfig.from_json(RunConfig().to_json().replace('"seed"', '"sead"'))


def test_a_config_from_before_a_setting_existed_has_its_default():
    values = json.loads(RunConfig(epochs=3).to_json())
    del values["block_attention"]
    assert RunConfig.from_json(json.dumps(values)) == RunConfig(epochs=3)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("task", "classify", "task is one of extractor, classifier"),
        ("epochs", 0, "epochs is at least 1, but 0"),
        ("background_bias", 1.5, "at least 0.0 and at most 1.0"),
        ("network", "vgg", "vgg13"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_allowed(field, value, message):
    with pytest.raises(UserError, match=message):
        RunConfig(**{field: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "classifier", "gate_reduction": 4}, "gate_reduction would do nothing"),
        ({"task": "extractor", "extractor": "x"}, "extractor names the context of a classifier"),
        ({"task": "classifier", "extractor": "x", "gate_attention": False}, "uses no context"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        RunConfig(**settings)


def test_padding_as_wide_as_the_image_is_refused():
    with pytest.raises(UserError, match="crop_padding is less than image_size, 32"):
        RunConfig(crop_padding=32).resolved(32)


def test_what_is_not_given_becomes_the_papers_value_for_the_task():
    extractor = RunConfig(task="extractor").resolved(32)
    assert (extractor.epochs, extractor.batch_size, extractor.learning_rate, extractor.crop_padding) == (
        600,
        32,
        2e-4,
        0,
    )
    classifier = RunConfig(task="classifier").resolved(128)
    assert (classifier.epochs, classifier.batch_size, classifier.learning_rate, classifier.crop_padding) == (
        200,
        128,
        0.1,
        16,
    )


def test_what_is_given_stays():
    assert RunConfig(epochs=3, crop_padding=2).resolved(32).epochs == 3


def test_every_field_is_a_flag_and_flags_give_the_config_back():
    assert parse("--run_dir=x", "--task=extractor") == RunConfig()
    config = parse("--run_dir=x", "--task=classifier", "--extractor=y", "--gate_sites=a,b", "--noflip", "--epochs=7")
    assert config == RunConfig(task="classifier", extractor="y", gate_sites=("a", "b"), flip=False, epochs=7)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to("configs")))
def test_every_shipped_flagfile_parses_and_says_what_it_is(path):
    assert path.read_text().startswith("# ")
    config = parse(f"--flagfile={path}", "--run_dir=x")
    assert config != RunConfig()


def test_every_flag_has_help():
    assert all(len(field.metadata["help"]) > 10 or field.name == "network" for field in dataclasses.fields(RunConfig))


def test_settings_that_do_nothing_do_not_tell_runs_apart():
    plain = RunConfig(task="classifier")
    gated = dataclasses.replace(plain, extractor="e")
    residual = dataclasses.replace(plain, gate_attention=False)
    assert not any(name.startswith("gate_") for name in plain.effective())
    assert "gate_compatibility" in gated.effective() and gated.effective()["gate_init"] == "identity"
    assert "gate_compatibility" not in residual.effective() and residual.effective()["gate_attention"] is False


def test_what_is_no_context_cannot_be_shuffled():
    with pytest.raises(UserError, match="gate_attention=False uses no context; leave gate_context out"):
        RunConfig(task="classifier", gate_attention=False, gate_context="shuffled")


@pytest.mark.parametrize("name", ["cifar100", "cifar100_resnet20"])
def test_the_flagfiles_of_released_models_without_a_gate_are_still_taken(name):
    assert not parse(f"--flagfile=zoo/{name}/flags.txt").gated
