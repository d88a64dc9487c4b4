"""python -m cdc_keras <command>: the same as cdc-keras <command>."""

from cdc_keras.cli import main

if __name__ == "__main__":
    main()
