"""python -m cdc_keras.zoo: lists the records of the zoo and verifies them."""

import sys

from absl import app

from cdc_keras import zoo
from cdc_keras.errors import UserError
from cdc_keras.progress import quiet_libraries
from cdc_keras.zoo import files


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"this takes no arguments; what is {argv[1]!r}?")
    quiet_libraries()
    try:
        problems = zoo.verify()
        print(f"{len(zoo.names())} records in {files.current()}")
        for name in zoo.names():
            print(f"  {name}")
    except UserError as error:
        sys.exit(f"error: {error}")
    if problems:
        sys.exit("\n".join(f"error: {problem}" for problem in problems))


if __name__ == "__main__":
    app.run(main)
