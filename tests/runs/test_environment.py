"""The commit that a number is published with."""

import subprocess

from cdc_keras.runs import environment


def test_a_change_anywhere_in_the_package_marks_the_commit(tmp_path, monkeypatch):
    for name in ("runs/environment.py", "trainers/step.py"):
        file = tmp_path / "cdc_keras" / name
        file.parent.mkdir(parents=True)
        file.write_text("")

    def git(*args):
        identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
        return subprocess.run(["git", "-C", tmp_path, *identity, *args], check=True, capture_output=True, text=True)

    for args in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "first")):
        git(*args)
    commit = git("rev-parse", "--short=12", "HEAD").stdout.strip()
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "cdc_keras/runs/environment.py"))
    assert environment.environment()["commit"] == commit
    (tmp_path / "notes.txt").write_text("no code")
    assert environment.environment()["commit"] == commit
    (tmp_path / "cdc_keras/trainers/step.py").write_text("changed")
    assert environment.environment()["commit"] == f"{commit}-dirty"
