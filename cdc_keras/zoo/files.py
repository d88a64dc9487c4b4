"""Where a zoo's files are: in a folder, or at a URL and then in a cache; and the checks before one is read."""

import difflib
import hashlib
import http.client
import os
import pathlib
import tempfile
import urllib.parse
import urllib.request

import h5py

from cdc_keras.errors import UserError
from cdc_keras.weights import sha256
from cdc_keras.zoo.findings import SHA256
from cdc_keras.zoo.record import INDEX, PRESET, File, check_name, read_json

TEXT_LIMIT = 2**20  # bytes of an index or a preset.json
CHUNK = 2**20  # bytes
TIMEOUT = 30  # seconds without an answer


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
        if not (self.path / name).is_dir():
            raise _unknown(name, self, index)
        if not self.trusted:
            raise UserError(f"{self.path / INDEX} does not list {name}; make the record with zoo.add, or give its path")
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
        """Returns {name: sha256 of preset.json} as it is now, or, out of reach, as it was last."""
        path = self.path / INDEX
        try:
            _download(f"{self.base}/{INDEX}", path, TEXT_LIMIT, lambda part: read_index(read_text(part), self.base))
        except ConnectionError as error:
            if not path.exists():
                raise UserError(str(error)) from error
        return read_index(read_text(path), path)

    def listed(self, name):
        """Returns the sha256 of the preset.json of `name`; only a name that was not there yet needs the network.

        Raises:
            UserError: there is no such record.
        """
        path = self.path / INDEX
        index = read_index(read_text(path), path) if path.exists() else {}
        if name not in index:
            index = self.index()
        if name not in index:
            raise _unknown(name, self, index)
        return index[name]

    def bring(self, name, file, expected):
        """Returns the path of a record's file in the cache, fetched if it is not there with this content.

        Args:
            name, file: which.
            expected: its `File`; no more bytes than it says are read.

        Raises:
            UserError: it can not be fetched, or is another file; it is not kept then.
        """
        path, url = self.path / name / file, f"{self.base}/{name}/{file}"

        def check(part):
            if sha256(part) != expected.sha256:
                raise UserError(
                    f"{url} is not the file that the zoo lists (sha256 differs, or it is cut off); try again, and if "
                    "the zoo has changed, zoo.names() fetches its index anew"
                )

        if not path.is_file() or sha256(path) != expected.sha256:
            try:
                _download(url, path, expected.bytes, check)
            except ConnectionError as error:
                raise UserError(str(error)) from error
        return path


def current():
    """Returns the zoo that CDC_KERAS_ZOO says, a folder or a URL; by default the one that came with the package.

    Raises:
        UserError: it says neither.
    """
    place = os.environ.get("CDC_KERAS_ZOO")
    if not place:
        return FolderZoo(own())
    if urllib.parse.urlsplit(place).scheme in ("http", "https", "file"):
        return UrlZoo(place, pathlib.Path(os.environ.get("CDC_KERAS_CACHE") or "~/.cache/cdc_keras").expanduser())
    path = pathlib.Path(place).expanduser()
    if not path.is_dir():
        raise UserError(f"CDC_KERAS_ZOO is a folder or an http, https or file URL, not {place!r}; set it to one")
    return FolderZoo(path)


def own():
    """Returns the folder of the zoo that came with the package: inside it if installed, beside it in a checkout."""
    package = pathlib.Path(__file__).resolve().parents[1]
    installed = package / "zoo_records"  # pyproject.toml installs zoo/ under this name
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
        raise UserError(f"can not read {path}: {error.strerror}; point CDC_KERAS_ZOO at a whole zoo") from error
    if len(content) > TEXT_LIMIT:
        raise UserError(f"{path} is larger than {TEXT_LIMIT} bytes, which is no {INDEX} or {PRESET}; get it again")
    return content


def check_file(path, expected):
    """Raises UserError unless the file has the size and sha256 of `expected`, a `File`."""
    if not path.is_file():
        raise UserError(f"{path} is missing; get the record again")
    if (size := path.stat().st_size) != expected.bytes:
        raise UserError(f"{path} has {size} bytes where {PRESET} says {expected.bytes}; get the record again")
    if (found := sha256(path)) != expected.sha256:
        raise UserError(f"{path} has sha256 {found} where {PRESET} says {expected.sha256}; get the record again")


def file_of(path):
    """Returns the `File` of a file."""
    return File(bytes=path.stat().st_size, sha256=sha256(path))


def check_hdf5(path):
    """Returns the number of values in an HDF5 file, having checked that all of it is in the file itself.

    Raises:
        UserError: it is no HDF5 file, has a link that is not a plain one, or takes data from another file.
    """
    seen = set()

    def count(group):
        if (address := h5py.h5o.get_info(group.id).addr) in seen:  # plain links may make a circle
            return 0
        seen.add(address)
        values = 0
        for key in group:
            place = f"{group.name.rstrip('/')}/{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise UserError(f"{path} has a link at {place}, as weights never do; do not use the file")
            item = group[key]
            if isinstance(item, h5py.Group):
                values += count(item)
            elif not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
                raise UserError(f"{path} takes {place} from elsewhere, as weights never do; do not use the file")
            else:
                values += item.size or 0
        return values

    try:
        with h5py.File(path, "r") as file:
            return count(file)
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"{path} is no whole HDF5 file ({error}); get the record again") from error


def _unknown(name, zoo, index):
    nearest = difflib.get_close_matches(name, index, n=1, cutoff=0)
    there = f"did you mean {nearest[0]!r}? There are {', '.join(sorted(index))}" if nearest else "it has none yet"
    return UserError(f"there is no record {name!r} in the zoo {zoo}; {there}")


def _download(url, path, limit, check):
    """Fetches at most `limit` bytes of `url`; they get the name `path` once `check(temporary path)` has not raised.

    Raises:
        ConnectionError: the URL can not be read.
        UserError: the cache can not be written, or `check` raised it.
    """
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            for chunk in _chunks(url, limit):
                file.write(chunk)
        check(pathlib.Path(part))
        os.replace(part, path)
    except ConnectionError:
        raise
    except OSError as error:
        raise UserError(f"can not write {path}: {error.strerror}; set CDC_KERAS_CACHE to a folder with room") from error
    finally:
        if part is not None:
            pathlib.Path(part).unlink(missing_ok=True)


def _chunks(url, limit):
    """Yields the bytes of `url`, `limit` of them at most."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            while limit > 0 and (chunk := response.read(min(CHUNK, limit))):
                limit -= len(chunk)
                yield chunk
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConnectionError(f"can not fetch {url}: {error}; go online, or set CDC_KERAS_ZOO to a folder") from error
