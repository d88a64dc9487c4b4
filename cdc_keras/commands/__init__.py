"""The bodies of the commands, one module each, whose `main` takes the parsed flags; `cdc_keras.cli` lists them."""
