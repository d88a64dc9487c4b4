import json
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "benchmarks" / "input_path.py"


def test_the_input_path_benchmark_prints_its_table_and_saves_its_numbers(tmp_path):
    out = tmp_path / "input_path.json"
    command = [sys.executable, SCRIPT, "--images", "256", "--repeats", "1", "--out", out]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    saved = json.loads(out.read_text())
    rows = [line for line in printed.splitlines() if line.startswith("|")][2:]
    assert len(rows) == len(saved["images_per_second"]) == 4
    assert f"bar 5.0x, measured {saved['measured']:.1f}x" in printed
