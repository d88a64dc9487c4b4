"""Several processes on this machine as the workers of one run, each with a TF_CONFIG of its own."""

import concurrent.futures
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from runs_on_disk import metrics, newest_step, values

from cdc_keras.devices import cluster, distribution
from cdc_keras.devices.cluster import Cluster, _host_and_port, from_environment, meet
from cdc_keras.errors import UserError
from cdc_keras.runs.folder import RunFolder

ROOT = pathlib.Path(__file__).resolve().parents[2]
FLAGS = "--task=extractor --train_limit=192 --batch_size=16 --epochs=3 --checkpoint_every=3 --validation_fraction=0.2"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for x in sockets:
        x.bind(("127.0.0.1", 0))
    ports = [x.getsockname()[1] for x in sockets]
    for x in sockets:
        x.close()
    return ports


def tf_config(addresses, index):
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def start(command, workers=2):
    """Starts a command once for each worker and returns the processes."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(workers)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment | {"TF_CONFIG": tf_config(addresses, index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(workers)
    ]


def ended(processes):
    """Returns (exit codes, what was printed, what came on standard error) of all."""
    printed = [process.communicate(timeout=600) for process in processes]
    return [process.returncode for process in processes], [out for out, _ in printed], [err for _, err in printed]


def training(folder, *more):
    return ["train.py", *FLAGS.split(), "--strategy=multi_worker", f"--run_dir={folder}", *more]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["extractor", "classifier", "transfer"])
def test_two_workers_end_in_float64_as_one_device_does(kind):
    codes, printed, errors = ended(start(["tests/distributed.py", kind, "2", "float64", "20"]))
    assert codes == [0, 0], errors
    found = json.loads(printed[0].splitlines()[-1])
    assert found["weights"] < 1e-8
    assert max(found["metrics"].values()) < 1e-8


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight") / "run"
    codes, _, errors = ended(start(training(folder)))
    assert codes == [0, 0], errors
    return folder


def wait_for_a_checkpoint(folder, processes):
    deadline = time.monotonic() + 300
    while newest_step(folder) == 0 and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes), ended(processes)
        time.sleep(0.01)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("killed", [0, 1])
def test_when_a_worker_is_killed_and_all_are_started_again_the_run_ends_as_if_nothing_had_been(
    killed, straight, tmp_path
):
    processes = start(training(tmp_path / "run"))
    wait_for_a_checkpoint(tmp_path / "run", processes)
    processes[killed].send_signal(signal.SIGKILL)
    codes, _, errors = ended(processes)
    assert codes[1 - killed] == 1
    assert (
        "another worker was lost" in errors[1 - killed]
        and "Start the same command on every worker" in errors[1 - killed]
    )
    assert 0 < newest_step(tmp_path / "run") < newest_step(straight)
    codes, _, errors = ended(start(training(tmp_path / "run")))
    assert codes == [0, 0], errors
    assert "going on after step" in errors[0]
    same(tmp_path / "run", straight)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_worker_that_is_told_to_stop_stops_all_after_a_checkpoint(straight, tmp_path):
    processes = start(training(tmp_path / "run", "--checkpoint_every=4"))
    wait_for_a_checkpoint(tmp_path / "run", processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, _, errors = ended(processes)
    assert codes == [130, 130], errors
    assert "saved after step" in errors[0]
    codes, _, errors = ended(start(training(tmp_path / "run")))
    assert codes == [0, 0], errors
    same(tmp_path / "run", straight)


def same(folder, expected):
    """Asserts that two finished runs have bit-identical checkpoints and metrics."""
    last = newest_step(expected)
    assert newest_step(folder) == last and RunFolder(folder).finished
    ours, theirs = (values(RunFolder(x).checkpoint(last)) for x in (folder, expected))
    assert ours.keys() == theirs.keys() and len(ours) > 30
    assert not [key for key in ours if not np.array_equal(ours[key], theirs[key])]
    assert metrics(folder) == metrics(expected)


@pytest.mark.parametrize("index", [0, 1])
def test_a_worker_that_does_not_come_is_named(index, monkeypatch):
    monkeypatch.setattr(cluster, "WAIT", 1)
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    missing = f"1 at {addresses[1]}" if index == 0 else f"the chief at {addresses[0]} does not answer"
    with pytest.raises(UserError, match=f"after 1 s .*{missing}"):
        meet(Cluster(addresses, index))


def test_workers_meet_though_a_stranger_calls_first():
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(3))
    workers = [Cluster(addresses, index) for index in range(3)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        chief = pool.submit(meet, workers[0])
        while True:
            try:
                with socket.create_connection(_host_and_port(addresses[0])) as stranger:
                    stranger.sendall(b"GET / HTTP/1.0")
                break
            except ConnectionRefusedError:
                assert not chief.done(), chief.exception()
        others = [pool.submit(meet, worker) for worker in workers[1:]]
        for met in (chief, *others):
            met.result(timeout=30)


def test_a_worker_whose_port_is_taken_says_so():
    with socket.create_server(("", 0)) as taken:
        addresses = f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:1"
        with pytest.raises(UserError, match=f"worker 0, {addresses[0]}, cannot start: Address already in use"):
            meet(Cluster(addresses, 0))


def test_a_run_folder_that_is_not_the_chiefs_is_refused(tmp_path):
    run = RunFolder(tmp_path / "run", writes=False)
    with pytest.raises(UserError, match="put run_dir on a file system that all workers share"):
        run.create(None)
    run.note(a=1)
    run.write_rows([{"a": 1.0}])
    run.save_checkpoint(None, 1)
    assert not run.path.exists()


TWO = ["a:1", "b:2"]


@pytest.mark.parametrize(
    "config, expected",
    [
        ({"cluster": {"worker": TWO}, "task": {"type": "worker", "index": 1}}, (("a:1", "b:2"), 1)),
        (
            {"cluster": {"worker": TWO, "chief": ["c:3"]}, "task": {"type": "worker", "index": 1}},
            (("c:3", "a:1", "b:2"), 2),
        ),
        (
            {"cluster": {"worker": TWO, "chief": ["c:3"]}, "task": {"type": "chief", "index": 0}},
            (("c:3", "a:1", "b:2"), 0),
        ),
    ],
    ids=["workers", "worker of a chief", "chief"],
)
def test_the_cluster_is_read_from_tf_config(config, expected, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert from_environment() == Cluster(*expected)


@pytest.mark.parametrize(
    "config, message",
    [
        ("{", "it is no JSON"),
        ("[]", 'it has no "cluster"'),
        ({"cluster": {"worker": TWO, "ps": ["c:3"]}}, "not ps"),
        ({"cluster": {"worker": "a:1"}}, "worker is a list of addresses host:port, not 'a:1'"),
        ({"cluster": {"worker": ["a"]}}, "list of addresses"),
        ({"cluster": {"worker": ["a:70000"]}}, "list of addresses"),
        ({"cluster": {"worker": ["a:1", "a:1"]}}, "two workers have one address"),
        ({"cluster": {"chief": TWO}, "task": {"type": "chief", "index": 0}}, "one chief at most"),
        ({"cluster": {"worker": TWO}}, '"task" says which'),
        ({"cluster": {"worker": TWO}, "task": {"type": "worker", "index": 2}}, '"task" says which'),
        ({"cluster": {"worker": TWO}, "task": {"type": "worker", "index": "0"}}, '"task" says which'),
        ({"cluster": {"worker": TWO}, "task": {"type": "chief", "index": 0}}, '"task" says which'),
    ],
    ids=lambda x: None if isinstance(x, (dict, str)) else x,
)
def test_an_invalid_tf_config_is_refused_in_one_sentence(config, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(UserError, match="TF_CONFIG is invalid") as error:
        distribution.check("multi_worker")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_multi_worker_without_tf_config_and_tf_config_without_multi_worker_are_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(UserError, match="strategy multi_worker needs TF_CONFIG"):
        distribution.check("multi_worker")
    distribution.check("none")
    monkeypatch.setenv("TF_CONFIG", tf_config(TWO, 0))
    distribution.check("multi_worker")
    for name in ("none", "mirrored"):
        with pytest.raises(UserError, match="TF_CONFIG names 2 workers but strategy is"):
            distribution.check(name)
    monkeypatch.setenv("TF_CONFIG", tf_config(TWO[:1], 0))  # what some launchers set for a job of one
    distribution.check("none")
