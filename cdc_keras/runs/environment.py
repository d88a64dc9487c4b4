"""What a number is published with: versions, backend, hardware, commit, date."""

import importlib.metadata
import pathlib
import platform
import re
import subprocess
import time

import keras

from cdc_keras.devices import precision


def environment():
    """Returns what a number should be published with: versions, backend, hardware, commit and the date."""
    packages = ("cdc-keras", "keras", "tensorflow", "jax", "numpy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "versions": versions,
        "backend": keras.backend.backend(),
        "hardware": hardware(),
        "commit": _commit(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def hardware():
    """Returns the accelerator, or the processor and the number of cores this process may use."""
    if keras.backend.backend() == "jax":
        import jax

        devices = [d.device_kind for d in jax.devices() if d.platform != "cpu"]
    else:
        import tensorflow as tf

        devices = [
            tf.config.experimental.get_device_details(d).get("device_name", d.name)
            for d in tf.config.list_physical_devices("GPU")
        ]
    if devices:
        return f"{len(devices)} x {devices[0]}"
    cores = precision.cores()
    return f"{cores} CPU {'core' if cores == 1 else 'cores'}, {_processor()}"


def _processor():
    if precision.CPUINFO.is_file():
        names = re.findall(r"model name\s*: (.*)", precision.CPUINFO.read_text(encoding="utf-8"))
        if names:
            return names[0]
    return platform.machine()


def _commit():
    """Returns the commit of the code in use, "-dirty" if changed, None outside a checkout."""
    package = pathlib.Path(__file__).parents[1]

    def git(*args):
        return subprocess.run(["git", "-C", package, *args], capture_output=True, text=True, check=True).stdout

    try:
        commit = git("rev-parse", "--short=12", "HEAD").strip()
        changed = git("status", "--porcelain", "--untracked-files=no", "--", package).strip()
        return commit + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
