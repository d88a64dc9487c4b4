"""The workers of TF_CONFIG: who they are, and how they meet before the first step."""

import contextlib
import dataclasses
import json
import os
import re
import socket
import time

from cdc_keras.errors import UserError

WAIT = 300  # seconds for which a worker waits until all others have come
ADDRESS = re.compile(r"[^\s:/]+:(\d{1,5})")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of TF_CONFIG.

    Attributes:
        addresses: "host:port" of each, the chief first.
        index: which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int


def from_environment():
    """Returns the `Cluster` of TF_CONFIG; None where that is not set.

    Raises:
        UserError: naming what is wrong in it.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _invalid(f"it is no JSON ({error})") from None
    jobs = config.get("cluster") if isinstance(config, dict) else None
    if not isinstance(jobs, dict) or not jobs:
        raise _invalid('it has no "cluster"')
    if others := sorted(set(jobs) - {"chief", "worker"}):
        raise _invalid(f"only a chief and workers take part, not {', '.join(others)}")
    addresses = {job: jobs[job] for job in ("chief", "worker") if job in jobs}
    for job, listed in addresses.items():
        if not isinstance(listed, list) or not listed or not all(map(_is_address, listed)):
            raise _invalid(f"{job} is a list of addresses host:port, not {listed!r}")
    flat = tuple(address for listed in addresses.values() for address in listed)
    if len(set(flat)) < len(flat):
        raise _invalid(f"two workers have one address: {', '.join(flat)}")
    if len(addresses.get("chief", ["one"])) > 1:
        raise _invalid("there is one chief at most")
    task = config.get("task")
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else (None, None)
    if kind not in addresses or type(index) is not int or not 0 <= index < len(addresses[kind]):
        raise _invalid(f'"task" says which of these this process is, by type and index, but it is {task!r}')
    return Cluster(flat, index + (len(addresses["chief"]) if kind == "worker" and "chief" in addresses else 0))


def _is_address(value):
    match = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return match is not None and 0 < int(match[1]) < 65536


def _invalid(what):
    return UserError(f"TF_CONFIG is invalid: {what}. {example()}")


def example():
    example = {"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}
    return f"For two workers, on the first: TF_CONFIG='{json.dumps(example)}'"


def meet(workers):
    """Returns when all workers are there. TensorFlow would wait for an hour, and could not be interrupted.

    Raises:
        UserError: naming who has not come in `WAIT` seconds.
    """
    deadline = time.monotonic() + WAIT
    if workers.index == 0:
        _wait_for_others(workers, deadline)
    else:
        _wait_for_chief(workers, deadline)


def _wait_for_others(workers, deadline):
    missing = dict(enumerate(workers.addresses[1:], start=1))
    with contextlib.ExitStack() as opened:
        try:
            server = opened.enter_context(socket.create_server(("", _host_and_port(workers.addresses[0])[1])))
        except OSError as error:
            raise cannot_start(workers, error.strerror) from error
        here = []
        while missing:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection = opened.enter_context(server.accept()[0])
                connection.settimeout(5)
                index = connection.recv(4)
            except TimeoutError:
                if time.monotonic() < deadline:
                    continue  # it said nothing: no worker
                names = ", ".join(f"{index} at {address}" for index, address in missing.items())
                raise UserError(f"after {WAIT} s these workers have not come: {names}; start them") from None
            missing.pop(int.from_bytes(index), None)
            here.append(connection)
        for connection in here:
            with contextlib.suppress(OSError):
                connection.sendall(b"all")
                connection.recv(1)  # they close first, which leaves the port free


def _wait_for_chief(workers, deadline):
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            with socket.create_connection(_host_and_port(workers.addresses[0]), timeout=5) as chief:
                chief.sendall(workers.index.to_bytes(4))
                chief.settimeout(max(deadline - time.monotonic(), 0.01))
                if chief.recv(3) == b"all":
                    return
        time.sleep(0.2)
    raise UserError(
        f"after {WAIT} s the chief at {workers.addresses[0]} does not answer, or waits for another worker; start all"
    )


def _host_and_port(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def cannot_start(workers, reason):
    return UserError(f"worker {workers.index}, {workers.addresses[workers.index]}, cannot start: {reason}")
