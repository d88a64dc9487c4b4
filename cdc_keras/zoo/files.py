"""Where a zoo's files are: in a folder, or at a URL and then in a cache; and the checks before one is read."""

import concurrent.futures
import difflib
import hashlib
import http.client
import json
import os
import pathlib
import threading
import time
import urllib.parse
import urllib.request

import h5py
import pooch

from cdc_keras.errors import UserError
from cdc_keras.paths import cache, expanded
from cdc_keras.weights import sha256, write_text
from cdc_keras.zoo.record import DECODER, DISENTANGLER, INDEX, PRESET, File, check_name
from cdc_keras.zoo.strict import SHA256, read_json

TEXT_LIMIT = 2**20  # bytes of an index or a preset.json
CHUNK = 2**20  # bytes
TIMEOUT = 30  # seconds without an answer
# An installed package has no such file: it is most of a zoo, and only audits and scores of extractors read it.
WITHOUT = "audits and scores need it, and it comes with the source; set CDC_KERAS_ZOO to the folder zoo of a checkout"
INSTALLED = "zoo_records"  # the name under which pyproject.toml installs zoo/
SLOWEST = 20_000  # bytes per second; a server that sends fewer is given up


class FolderZoo:
    """The records in a folder, each a folder of its own; index.json holds the sha256 of every preset.json.

    Args:
        path: the folder.
        trusted: a record that the index does not list is taken as it is; for one that is given by its path.
    """

    def __init__(self, path, trusted=False):
        self.path, self.trusted = pathlib.Path(path), trusted

    def __str__(self):
        return str(self.path)

    def index(self):
        """Returns {name: sha256 of preset.json}, empty if there is no index."""
        path = self.path / INDEX
        return read_index(read_text(path), path) if path.exists() else {}

    def listed(self, name):
        """Returns the sha256 of the preset.json of `name`, None for one that is trusted without.

        Raises:
            UserError: there is no such record.
        """
        index = self.index()
        if name in index:
            return index[name]
        if not name or not os.path.isdir(self.path / name):  # False for a name too long for the file system
            raise _unknown(name, self, index)
        if not self.trusted:
            raise UserError(
                f"{self.path / INDEX} does not list {name}; make it with cdc_keras.release.add, or give its path"
            )
        return None

    def bring(self, name, file, expected):
        """Returns the path of a record's file; `expected` is for zoos that have to fetch it."""
        return self.path / name / file


class UrlZoo:
    """The records below a URL; its files are fetched once, into the cache.

    `<base>/index.json` is {name: sha256 of preset.json}, `<base>/<name>/<file>` are the files.

    Args:
        base: http, https or file URL.
        cache: folder for all that is fetched.
    """

    def __init__(self, base, cache):
        self.base = base.rstrip("/")
        self.path = pathlib.Path(cache) / "zoo" / hashlib.sha256(self.base.encode()).hexdigest()[:16]

    def __str__(self):
        return self.base

    def index(self):
        """Returns {name: sha256 of preset.json} as it is now or, if the URL is out of reach, as it was last.

        Raises:
            UserError: the URL is out of reach and was before, or what is there is no index.
        """
        try:
            text = b"".join(_chunks(f"{self.base}/{INDEX}", TEXT_LIMIT))
        except ConnectionError as error:
            if (kept := self._kept_index()) is None:
                raise UserError(str(error)) from error
            return kept
        index = read_index(text, f"{self.base}/{INDEX}")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        write_text(self.path / INDEX, json.dumps(index, indent=2) + "\n")
        return index

    def listed(self, name):
        """Returns the sha256 of the preset.json of `name`; only a name that was not there yet needs the network.

        Raises:
            UserError: there is no such record.
        """
        index = self._kept_index() or {}
        if name not in index:
            index = self.index()
        if name not in index:
            raise _unknown(name, self, index)
        return index[name]

    def bring(self, name, file, expected):
        """Returns the path of a record's file in the cache, fetched if it is not there with this content.

        Args:
            name, file: which, both of a form that cannot leave the cache.
            expected: its `File`; no more bytes than it says are read.

        Raises:
            UserError: it cannot be fetched, or is another file; it is not kept then.
        """
        url, folder = f"{self.base}/{name}/{file}", self.path / name

        def download(url, path, _):
            with open(path, "wb") as opened:
                opened.writelines(_chunks(url, expected.bytes))

        try:
            return pathlib.Path(pooch.retrieve(url, f"sha256:{expected.sha256}", file, folder, downloader=download))
        except ConnectionError as error:
            raise UserError(str(error)) from error
        except OSError as error:
            raise _unwritable(folder / file, error) from error
        except ValueError as error:  # Pooch's, of another sha256
            raise UserError(
                f"{url} is not the file that the zoo lists (sha256 differs, or it is cut off); try again, and if "
                "the zoo has changed, zoo.names() fetches its index anew"
            ) from error

    def _kept_index(self):
        """Returns the index that was fetched last, None if there is none or it is damaged."""
        try:
            return read_index(read_text(self.path / INDEX), self.path / INDEX)
        except UserError:
            return None


def current():
    """Returns the zoo that CDC_KERAS_ZOO says, a folder or a URL; by default the one that came with the package.

    Raises:
        UserError: it says neither.
    """
    place = os.environ.get("CDC_KERAS_ZOO")
    if not place:
        return FolderZoo(own())
    try:
        parts = urllib.parse.urlsplit(place)
        if parts.scheme == "file" or (parts.scheme in ("http", "https") and parts.hostname):
            return UrlZoo(place, cache())
    except ValueError:  # such as http://[::1
        pass
    path = expanded(place)
    if not os.path.isdir(path):
        raise UserError(f"CDC_KERAS_ZOO is a folder or an http, https or file URL, not {place!r}; set it to one")
    return FolderZoo(path)


def own():
    """Returns the folder of the zoo that came with the package: inside it if installed, beside it in a checkout."""
    package = pathlib.Path(__file__).resolve().parents[1]
    installed = package / INSTALLED
    return installed if installed.is_dir() else package.parent / "zoo"


def read_index(text, path):
    """Returns the {name: sha256} of an index.json; `path` is for messages.

    Raises:
        UserError: it is none.
    """
    index = read_json(text, path)
    if not isinstance(index, dict) or not all(isinstance(x, str) and SHA256.fullmatch(x) for x in index.values()):
        raise UserError(f"{path} is to be an object of names and sha256; point CDC_KERAS_ZOO at a zoo")
    for name in index:
        check_name(name)
    return index


def read_text(path):
    """Returns the bytes of an index or preset.json.

    Raises:
        UserError: there is none, or it is too large for one.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(TEXT_LIMIT + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; point CDC_KERAS_ZOO at a whole zoo") from error
    if len(content) > TEXT_LIMIT:
        raise UserError(f"{path} is larger than {TEXT_LIMIT} bytes, which is no {INDEX} or {PRESET}; get it again")
    return content


def check_file(path, expected):
    """Raises UserError unless the file has the size and sha256 of `expected`, a `File`."""
    if not path.is_file():
        raise UserError(
            f"{path} is missing; {WITHOUT if path.name in (DISENTANGLER, DECODER) else 'get the record again'}"
        )
    if (size := path.stat().st_size) != expected.bytes:
        raise UserError(f"{path} has {size} bytes where {PRESET} says {expected.bytes}; get the record again")
    if (digest := sha256(path)) != expected.sha256:
        raise UserError(f"{path} has sha256 {digest} where {PRESET} says {expected.sha256}; get the record again")


def file_of(path):
    """Returns the `File` of a file."""
    return File(bytes=path.stat().st_size, sha256=sha256(path))


def count_values(path):
    """Returns the number of values in the arrays of an HDF5 file; Keras itself refuses arrays that are elsewhere.

    Raises:
        UserError: it is no HDF5 file.
    """
    sizes = []

    def visit(_, item):
        if isinstance(item, h5py.Dataset):
            sizes.append(item.size or 0)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"{path} is no whole HDF5 file ({error}); get the record again") from error
    return sum(sizes)


def _unknown(name, zoo, index):
    nearest = difflib.get_close_matches(name, index, n=1, cutoff=0)
    hint = f"did you mean {nearest[0]!r}? There are {', '.join(sorted(index))}" if nearest else "it has none yet"
    return UserError(f"there is no record {name!r} in the zoo {zoo}; {hint}")


def _unwritable(path, error):
    why = error.strerror or error
    return UserError(f"cannot write {path}: {why}; set CDC_KERAS_CACHE to a folder of your own with room")


def _chunks(url, limit):
    """Yields the bytes of `url`, `limit` of them at most.

    Raises:
        ConnectionError: it cannot be read, or comes so slowly that it seems without end.
    """
    end = time.monotonic() + TIMEOUT + limit / SLOWEST
    try:
        with _answer(url) as response:
            while limit > 0 and (chunk := response.read1(min(CHUNK, limit))):
                limit -= len(chunk)
                yield chunk
                if time.monotonic() > end:
                    raise TimeoutError("it sends too slowly")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConnectionError(f"cannot fetch {url}: {error}; go online, or set CDC_KERAS_ZOO to a folder") from error


def _answer(url):
    """Returns the response to a request for `url`, whose headers, too, have to come within `TIMEOUT`."""
    answer = concurrent.futures.Future()

    def ask():
        try:
            answer.set_result(urllib.request.urlopen(url, timeout=TIMEOUT))
        except Exception as error:  # is raised where the result is taken
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer.result(TIMEOUT)
