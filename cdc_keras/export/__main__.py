"""python -m cdc_keras.export --run_dir=runs/... --out=models/...: a trained network as TensorFlow Serving loads it."""

import sys

from absl import app, flags

from cdc_keras.errors import UserError


def define(values=flags.FLAGS):
    """Defines the flags in `values`, an `absl.flags.FlagValues`."""
    text = lambda name, help: flags.DEFINE_string(name, None, help, values)  # noqa: A002, E731
    text("run_dir", "folder of the finished run to export")
    flags.DEFINE_alias("run", "run_dir", values)
    text("zoo", "a record of the zoo instead")
    text("out", "folder of the model; its name is the one TF Serving knows the model by")
    flags.DEFINE_enum("format", "saved_model", ["saved_model", "onnx"], "what to write", flag_values=values)
    flags.DEFINE_integer(
        "version", None, "of the model; one more than the newest in --out if not given", 1, None, values
    )


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"settings are given as --name=value; what is {argv[1]!r}?")
    values = flags.FLAGS
    try:
        if (values.run_dir is None) == (values.zoo is None):
            raise UserError("give what to export either as --run_dir=runs/... or as --zoo=<name>")
        if values.out is None:
            raise UserError("say where to with --out, a folder for the model")
        from cdc_keras.choices import ZOO
        from cdc_keras.cli import quiet_libraries
        from cdc_keras.export.export import export  # these import the backend, which --help need not wait for

        quiet_libraries()
        source = values.run_dir if values.zoo is None else f"{ZOO}{values.zoo}"
        exported = export(source, values.out, version=values.version, format=values.format)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    about = exported.metadata
    for name, signature in about["signatures"].items():
        shown = lambda specs: ", ".join(f"{key} {spec}" for key, spec in specs.items())  # noqa: E731
        print(f"{name}: {shown(signature['inputs'])}\n  -> {shown(signature['outputs'])}")
    for name, reason in about.get("not_converted", {}).items():
        print(f"{name}: not converted, as {reason}")
    print(f"the model is in {exported.folder}; docs/serving.md says how to serve it")


if __name__ == "__main__":
    define()
    app.run(main)
