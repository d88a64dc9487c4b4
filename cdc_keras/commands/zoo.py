"""cdc-keras zoo: the released models, and whether they are what they say."""

import sys

from cdc_keras.release.verify import verify
from cdc_keras.zoo import files
from cdc_keras.zoo.loading import names


def main(values):
    """Lists the records and verifies them; exits with status 1 if something is wrong."""
    print(f"{len(names())} records in {files.current()}", flush=True)
    for name in names():
        print(f"  {name}", flush=True)
    problems = verify(values.names or None, data_dir=values.data_dir, numbers=values.numbers)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    if values.numbers:
        print("verified: files, cards, networks, golden outputs; scores and audits of whole records, computed again")
    else:
        print("verified: files, cards, networks, golden outputs; scores and audits were not computed again")
