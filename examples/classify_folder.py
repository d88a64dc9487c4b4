"""Asks a TensorFlow Serving for the categories of all images in a folder: python examples/classify_folder.py FOLDER

It needs nothing but Python. A request holds several images; where one is refused, its images are asked for one by one,
so that a bad file costs no other.
"""

import argparse
import base64
import json
import pathlib
import sys
import urllib.error
import urllib.request

SUFFIXES = {".jpg", ".jpeg", ".png"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="its JPEG and PNG files are sent")
    parser.add_argument("--server", default="http://localhost:8501", help="the REST address of TensorFlow Serving")
    parser.add_argument("--model", default="cifar100_resnet20_gated", help="name of the model there")
    parser.add_argument("--batch", type=int, default=16, help="images in one request")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        sys.exit(f"error: there is no folder {arguments.folder}")
    if arguments.batch < 1:
        sys.exit(f"error: --batch is at least 1, not {arguments.batch}")
    files = sorted(x for x in arguments.folder.iterdir() if x.suffix.lower() in SUFFIXES and x.is_file())
    if not files:
        sys.exit(f"error: {arguments.folder} holds no file that ends in {', '.join(sorted(SUFFIXES))}")
    url = f"{arguments.server.rstrip('/')}/v1/models/{arguments.model}:predict"
    sys.stdout.reconfigure(errors="backslashreplace")  # names may be no text
    width, failed = max(len(path.name) for path in files), 0
    print(f"{'file':{width}}  score  category (the four next)")
    for i in range(0, len(files), arguments.batch):
        for path, answer in ask(url, files[i : i + arguments.batch]):
            if isinstance(answer, str):
                print(f"{path.name:{width}}  {answer}")
                failed += 1
                continue
            (label, *others), (score, *rest) = answer["top_labels"], answer["top_scores"]
            next_best = ", ".join(f"{other} {share:.0%}" for other, share in zip(others, rest, strict=True))
            print(f"{path.name:{width}}  {score:5.1%}  {label} ({next_best})")
    if failed:
        sys.exit(f"error: {failed} of {len(files)} images were left out")


def ask(url, paths):
    """Returns [(path, answer)] of image files, an answer being the prediction or, if it was refused, the reason."""
    try:
        instances = [{"image_bytes": {"b64": base64.b64encode(path.read_bytes()).decode()}} for path in paths]
    except OSError as error:
        return one_by_one(url, paths, f"cannot be read: {error.strerror}")
    body = json.dumps({"signature_name": "serve_bytes", "instances": instances}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return list(zip(paths, json.load(response)["predictions"], strict=True))
    except urllib.error.HTTPError as error:
        reason = " ".join(error.read().decode(errors="replace").split())[:200]
        if error.code not in (400, 413):  # not of these images: bad ones, or too large a body
            sys.exit(f"error: {url} answers {error.code}: {reason}")
        return one_by_one(url, paths, f"refused: {reason}")
    except urllib.error.URLError as error:
        sys.exit(f"error: no answer from {url} ({error.reason}); start TensorFlow Serving, or name it with --server")


def one_by_one(url, paths, reason):
    """Returns the answers of images asked for each on its own, after a request failed; for one image, the reason."""
    return [answer for path in paths for answer in ask(url, [path])] if len(paths) > 1 else [(paths[0], reason)]


if __name__ == "__main__":
    main()
