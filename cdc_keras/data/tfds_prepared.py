"""Opens a set that TensorFlow Datasets (TFDS) has prepared on this machine."""

import difflib
import importlib.util
import re

from cdc_keras.errors import UserError

# name, name/config or either with :version. A namespace (huggingface:name) would go to the network, so it is none.
NAME = re.compile(r"\w+(/[^:]+)?(:[\d.*]+)?")


def prepared(name, data_dir):
    """Returns the `tfds.core.DatasetBuilder` of a set that is there; otherwise a `UserError` says what to do."""
    # TFDS imports without TensorFlow and then fails at the first read.
    needed = ("tensorflow", "tensorflow_datasets", "importlib_resources")
    if missing := [module for module in needed if importlib.util.find_spec(module) is None]:
        raise UserError(
            f"{name} is read with TensorFlow Datasets, which needs {', '.join(missing)}: install that, "
            f"or put the images as arrays into {data_dir or '<data_dir>'}/{name}.npz"
        )
    import tensorflow_datasets as tfds

    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name of a TFDS set such as cifar100 or imagenet_resized/32x32; "
            "for a folder of images give dataset=folder and the path as data_dir"
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        names = ["shapes", "folder", "imagenet150k", *tfds.list_builders(with_community_datasets=False)]
        nearest = difflib.get_close_matches(re.split("[/:]", name)[0], names, n=5)
        hint = f"did you mean {', '.join(nearest)}?" if nearest else "see tensorflow.org/datasets/catalog for all names"
        raise UserError(f"there is no data set {name}: {hint}") from None
    except (ValueError, AssertionError) as error:  # No such config or version, or a config has to be chosen.
        raise UserError(f"TFDS cannot open {name}: {' '.join(str(error).split())}") from error
    if not builder.info.splits:
        where = "" if data_dir is None else f", data_dir={str(data_dir)!r}"
        manual = "" if builder.MANUAL_DOWNLOAD_INSTRUCTIONS is None else _manual(builder, data_dir)
        raise UserError(
            f"{name} is not prepared in {builder.data_dir}: {manual}run once\n"
            f'  python -c "import tensorflow_datasets as tfds; tfds.builder({name!r}{where}).download_and_prepare()"'
        )
    return builder


def _manual(builder, data_dir):
    folder = f"{data_dir or '~/tensorflow_datasets'}/downloads/manual"
    files = "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar" if builder.name == "imagenet2012" else "its archives"
    return f"it cannot be fetched without an account, so put {files} into {folder}, then "
