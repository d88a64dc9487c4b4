"""Exported models, made by the commands of the documents; only read."""

import contextlib
import pathlib
import re

import pytest
from commands import run_command
from shared import made_once

from cdc_keras.export.export import export

ROOT = pathlib.Path(__file__).resolve().parents[1]
NAME, EXTRACTOR = "cifar100_resnet20_gated", "cifar100"


def run_of(page, number, folder):
    """Runs one of a page's commands of export with `folder` in the place of `models`; what it says is in said.txt."""
    command = re.findall(r"cdc-keras export (.*)", (ROOT / page).read_text())[number]
    folder.mkdir()
    with (folder / "said.txt").open("w") as said, contextlib.redirect_stdout(said):
        run_command("export", *command.replace("--out=models", f"--out={folder}").split())


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The version folder of the model that README's command writes."""
    return made_once(tmp_path_factory, "models", lambda folder: run_of("README.md", 0, folder)) / NAME / "1"


@pytest.fixture(scope="session")
def exported_as_onnx(tmp_path_factory):
    """(version folder, what was said): of the same model as ONNX, by the command of docs/serving.md."""
    folder = made_once(tmp_path_factory, "onnx_models", lambda folder: run_of("docs/serving.md", 2, folder))
    return folder / "onnx" / "1", (folder / "said.txt").read_text()


@pytest.fixture(scope="session")
def exported_as_litert(tmp_path_factory):
    """(version folder, what was said): of the same model as LiteRT, by the command of docs/serving.md."""
    folder = made_once(tmp_path_factory, "litert_models", lambda folder: run_of("docs/serving.md", 3, folder))
    return folder / "litert" / "1", (folder / "said.txt").read_text()


@pytest.fixture(scope="session")
def exported_extractor(tmp_path_factory):
    """The version folder of a released extractor."""
    return made_once(tmp_path_factory, "extractors", lambda folder: export(f"zoo:{EXTRACTOR}", folder)) / "1"
