"""Scores a run folder, python evaluate.py --run_dir=runs/..., or a record of the zoo, --zoo=<name>, beside its card."""

import sys

from absl import app, flags

from cdc_keras.errors import UserError

RUN_DIR = flags.DEFINE_string("run_dir", None, "folder that train.py wrote")
ZOO = flags.DEFINE_string("zoo", None, "a record of the zoo instead; nothing is written")
SPLIT = flags.DEFINE_enum("split", "test", ["test", "validation"], "images to score; choose settings on validation")
WEIGHTS = flags.DEFINE_enum("weights", "last", ["last", "best"], "newest checkpoint, or best epoch on validation")
DATA_DIR = flags.DEFINE_string("data_dir", None, "where the data are now, if not where they were in training")
PLAIN_RUN_DIR = flags.DEFINE_string("plain_run_dir", None, "run of the ungated network, drawn beside a gated one")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"settings are given as --name=value; what is {argv[1]!r}?")
    from cdc_keras.cli import quiet_libraries

    from cdc_keras import zoo
    from cdc_keras.release.verify import evaluate_record, record_table
    from cdc_keras.runs import evaluation  # these import the backend, which --help need not wait for

    quiet_libraries()
    try:
        if (RUN_DIR.value is None) == (ZOO.value is None):
            raise UserError("give what to score either as --run_dir=runs/... or as --zoo=<name>")
        if ZOO.value is not None:
            if WEIGHTS.present or PLAIN_RUN_DIR.present:
                raise UserError("--weights and --plain_run_dir are for a run folder; leave them out with --zoo")
            record = zoo.info(ZOO.value)
            scores = evaluate_record(ZOO.value, split=SPLIT.value, data_dir=DATA_DIR.value)
            print(record_table(record, SPLIT.value, scores))
            if wrong := zoo.wrong_scores(record, SPLIT.value, scores):
                sys.exit(f"error: {'; '.join(wrong)}")
            return
        scores = evaluation.evaluate(
            RUN_DIR.value,
            split=SPLIT.value,
            weights=WEIGHTS.value,
            data_dir=DATA_DIR.value,
            plain=PLAIN_RUN_DIR.value,
        )
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    print(evaluation.table(scores))
    print(f"pictures and scores are in {RUN_DIR.value}")


if __name__ == "__main__":
    app.run(main)
