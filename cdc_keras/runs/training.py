"""From a configuration to a finished run: build, train epoch by epoch, validate, checkpoint, go on where it stopped."""

import sys
import time

import keras
import numpy as np

from cdc_keras.data.dataset import Split, StreamSplit
from cdc_keras.data.load import load_dataset
from cdc_keras.data.pipeline import evaluation_batches, evaluation_steps, training_batches
from cdc_keras.devices import distribution, precision
from cdc_keras.errors import UserError
from cdc_keras.gate.parts import ATTENTION
from cdc_keras.runs.environment import environment
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.trained import load_context, load_teacher, untrained_model
from cdc_keras.trainers.build import extractor_of, ramp_steps
from cdc_keras.trainers.callbacks import Checkpoints, Progress, StopOnSignal, TensorBoardLog, check_finite, duration
from cdc_keras.trainers.classifier import Classifier
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.weights import save_weights, sha256

EVALUATION_BATCH = 250
SHOWN = 8  # images in a picture


def train(config, run_dir, *, pictures=True):
    """Trains what `config` says into the folder `run_dir`, or goes on with it there, and returns the `RunFolder`.

    A step is a pure function of the weights, the optimizer's state and the seed, so a run that was stopped goes on from
    its last checkpoint with the batches it would have seen.

    Args:
        config: a `RunConfig`.
        run_dir: path of the run folder.
        pictures: draw how training goes; False where there are too many runs to look at.

    Raises:
        UserError: for anything a person can put right, in one sentence.
    """
    precision.prepare(config)
    with distribution.scope(config.strategy):
        run = RunFolder(run_dir, writes=distribution.is_chief())
        _train(config, run, pictures)
        distribution.anywhere(False)  # the chief is still writing when the others are done
        return run


def _train(config, run, pictures):
    dataset = load_dataset(config)
    config = config.resolved(dataset.image_size)
    steps_per_epoch = len(dataset.train) // config.batch_size
    if not steps_per_epoch:
        raise UserError(
            f"batch_size is {config.batch_size} but there are only {len(dataset.train)} training images; lower it"
        )
    if config.batch_size % (replicas := distribution.replicas()):
        raise UserError(f"a batch of {config.batch_size} can not be shared equally among {replicas} devices; change it")
    if isinstance(dataset.train, StreamSplit) and keras.backend.backend() != "tensorflow":
        raise UserError(
            f"{config.dataset} is decoded on the way (too large for memory, or cropped by crop_area), which needs "
            "KERAS_BACKEND=tensorflow"
        )
    run.check(config)
    if not distribution.agreed(max(run.steps(), default=0)):
        raise UserError(f"{run.path} is not the same folder on every worker; put it on a file system that all share")
    extractor = teacher = None
    if config.gated and config.gate_attention and not run.steps():
        extractor = load_context(config)
    if config.teacher is not None and not run.finished:
        teacher = load_teacher(config, dataset.class_names)
    model = untrained_model(config, len(dataset.class_names), run, steps_per_epoch, extractor, teacher)
    with distribution.chief_first():
        run.create(config, extractor)
        run.check_data(dataset)
        run.check_fingerprint(model)
    with run.lock():
        if teacher is not None:
            _meet(teacher, run, dataset, config)
            run.record(transfer=model.pairs)
        _fit(model, run, dataset, config, steps_per_epoch, pictures)


def _fit(model, run, dataset, config, steps_per_epoch, pictures):
    """Trains the epochs that are missing."""
    if step := run.load_checkpoint(model):
        _tell(run, f"going on after step {step}")
    total = config.epochs * steps_per_epoch
    rows = run.rows()[: step // steps_per_epoch]
    if step >= total:
        if not run.finished:  # stopped between the last checkpoint and the record of the end
            _finish(model, run, config, rows)
        _tell(run, f"{run.path} is finished: {config.epochs} epochs. Evaluate it with evaluate.py")
        return
    if step:
        run.record(resumed=[*run.read_record().get("resumed", []), {"step": step, **environment()}])
    else:
        run.record(**environment(), steps_per_epoch=steps_per_epoch, train_images=len(dataset.train))
        _note_short_ramp(run, config, steps_per_epoch)

    curves = TensorBoardLog(run.path / "tensorboard" if run.writes else None)
    chunk = config.steps_per_call if keras.backend.backend() == "jax" else 1
    progress = Progress(
        epochs=config.epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=config.batch_size,
        steps_per_chunk=chunk,
        first_step=step,
        shown=run.writes,
    )
    saved = time.monotonic()

    def save(step):
        nonlocal saved
        run.save_checkpoint(model, step)
        now = time.monotonic()
        run.record(train_seconds=run.read_record().get("train_seconds", 0.0) + now - saved)
        saved = now

    checkpoints = Checkpoints(
        config.checkpoint_every, steps_per_epoch=steps_per_epoch, steps_done=lambda: steps_done(model), save=save
    )
    with StopOnSignal() as stop:
        while step < total:
            epoch, first_step = divmod(step, steps_per_epoch)
            if not first_step:
                _renew(model, config, epoch)
            progress.start_epoch(step)
            started = time.monotonic()
            model.resumes_in_mid_epoch = first_step > 0
            steps = steps_per_epoch - first_step
            history = model.fit(
                training_batches(
                    dataset.train,
                    dataset.image_size,
                    first_step=first_step,
                    steps_per_call=config.steps_per_call,
                    batch_size=config.batch_size,
                    seed=config.seed,
                    epoch=epoch,
                    crop_padding=config.crop_padding,
                    flip=config.flip,
                    augmentation=config.augmentation,
                    num_classes=len(dataset.class_names),
                ),
                steps_per_epoch=-(-steps // chunk),
                initial_epoch=epoch,
                epochs=epoch + 1,
                callbacks=[progress, checkpoints, stop],
                shuffle=False,
                verbose=0,
            )
            readings = {name: float(values[-1]) for name, values in history.history.items()}
            check_finite(readings)
            seconds = time.monotonic() - started
            step = steps_done(model)
            if step == (epoch + 1) * steps_per_epoch:
                row = {"epoch": epoch + 1, **readings, **model.skipped_steps(), **held_out(model, dataset, config)}
                row |= {"seconds": seconds, "images_per_second": steps * config.batch_size / seconds}
                rows.append(row)
                _keep_best(model, run, rows)
                run.write_rows(rows)
                curves.write(step, row)
                progress.end_epoch(_summary(row, config.epochs, rows))
            save(step)
            shown = pictures and run.writes and step % steps_per_epoch == 0
            if shown and (_is_power_of_two(epoch + 1) or step == total):
                distribution.alone(lambda: _draw(model, run, dataset, rows))
            if stop.agreed() and step < total:
                _tell(run, f"saved after step {step} of {total}; the same command goes on from there")
                return
    _finish(model, run, config, rows)


def _renew(model, config, epoch):
    """Lets one of the discriminators start afresh, if it is its turn at the beginning of this epoch, from 0."""
    every = config.discriminator_reset_epochs
    if every and epoch and epoch % every == 0 and isinstance(model, Disentangler) and model.adversarial:
        model.renew_discriminator((epoch // every - 1) % config.discriminators, epoch)


def _tell(run, text):
    """Prints a line on standard error; of several workers only the chief speaks."""
    if run.writes:
        print(text, file=sys.stderr)


def held_out(model, dataset, config):
    """Returns the readings on validation, {"val_...": float}, and if the config says so on test, {"test_...": float}.

    An empty split has none.
    """
    splits = {"val": dataset.validation, **({"test": dataset.test} if config.test_every_epoch else {})}
    scores = {prefix: evaluate_split(model, split, config) for prefix, split in splits.items() if len(split)}
    return {f"{prefix}_{name}": value for prefix, split in scores.items() for name, value in split.items()}


def evaluate_split(model, split, config):
    """Returns the readings of `model.assess` over a split as {name: float}."""
    if config.gate_context == "shuffled" and not isinstance(split, StreamSplit):
        # Stored class by class, the image before one is of its own category.
        split = split.sample(0)
    length = {"batch_size": EVALUATION_BATCH, "steps_per_call": config.steps_per_call}
    batches = evaluation_batches(split, config.image_size, **length)
    sized = keras.backend.backend() == "jax" or distribution.replicas() > 1
    steps = evaluation_steps(split, **length) if sized else None
    return {name: float(x) for name, x in model.evaluate(batches, steps=steps, verbose=0, return_dict=True).items()}


def steps_done(model):
    """Returns the number of training steps the model has seen."""
    return int(model.steps.numpy())


def _note_short_ramp(run, config, steps_per_epoch):
    """Says so if lambda_fool will stay far below its weight, as the paper's ramp makes it in a short run."""
    ramp, total = ramp_steps(config, steps_per_epoch), config.epochs * steps_per_epoch
    if config.task == "extractor" and config.context == "cdcgm" and ramp > total:
        reached = config.fool_weight * total / ramp
        _tell(
            run,
            f"note: lambda_fool reaches only {reached:.2g} of {config.fool_weight:.2g}, its ramp being longer than the "
            "run; fool_ramp_fraction scales it",
        )


def _meet(teacher, run, dataset, config):
    """Scores the teacher before the student's first step, or checks that it is still the one of then."""
    known = run.read_record().get("teacher")
    if known is None:
        name, split = next((n, s) for n in ("validation", "test") if len(s := getattr(dataset, n)))
        model = Classifier(teacher.network)
        model.compile()
        scores = evaluate_split(model, split, config)
        run.record(teacher={"sha256": teacher.sha256, "split": name, **scores})
        _tell(run, f"teacher {config.teacher}: top-1 {scores['top1']:.2%} on {name}")
    elif known["sha256"] != teacher.sha256:
        raise UserError(f"the teacher in {config.teacher} has other weights than when {run.path} was started")


def _finish(model, run, config, rows):
    """Records the end of a run; an extractor's weights appear in its folder only now."""
    if not run.writes:
        return
    end = {}
    if config.task == "extractor":
        save_weights(extractor_of(model, config), run.extractor_weights)
        end["extractor_sha256"] = sha256(run.extractor_weights)
    hours = run.read_record().get("train_seconds", 0.0) / 3600
    run.record(finished=True, epochs=config.epochs, hours=hours, last_epoch=rows[-1], **end)


def _keep_best(model, run, rows):
    """Writes the classifier's network if the epoch just finished is the best on validation."""
    if run.writes and "val_top1" in rows[-1] and rows[-1]["val_top1"] >= max(row["val_top1"] for row in rows):
        save_weights(model.network, run.best_weights)


def _draw(model, run, dataset, rows):
    """Writes the pictures that show how training goes."""
    from cdc_keras.visualize import figures

    shown = examples_to_show(dataset.validation if len(dataset.validation) else dataset.train)
    try:
        figures.curves(rows, run.pictures / "curves.png")
        if isinstance(model, Disentangler):
            draw_extractor(model, shown, dataset.class_names, run)
        elif any(layer.name == ATTENTION for layer in model.network.layers):
            draw_strips(None, model.network, shown, run)
    except (OSError, ImportError) as error:  # a full disk, or a machine without matplotlib: training is worth more
        print(f"no pictures: {error}", file=sys.stderr)


def examples_to_show(split):
    """Returns a `Split` of a few examples, spread over the split: folders are stored class by class."""
    if isinstance(split, StreamSplit):
        images, labels = zip(*split.examples(0).take(SHOWN).as_numpy_iterator(), strict=True)
        return Split(np.stack(images), np.stack(labels))
    return split.take(np.linspace(0, len(split) - 1, min(SHOWN, len(split))).astype(int))


def draw_extractor(model, shown, class_names, run):
    """Writes the reconstructions of a `Split` and, where there is a condition, the same T under others."""
    from cdc_keras.visualize import figures

    figures.reconstructions(model, shown.images, shown.labels, run.pictures / "reconstructions.png")
    if model.conditional:
        path = run.pictures / "condition_swaps.png"
        figures.condition_swaps(model, shown.images, shown.labels, class_names, path)


def draw_strips(plain, gated, shown, run):
    """Writes the strip of a `Split`, with the plain network or None; where masks are known, with what they tell."""
    from cdc_keras.visualize import figures

    figures.strip(shown.images, plain, gated, run.pictures / "strips.png", masks=shown.factors.get("mask"))


def _summary(row, epochs, rows):
    left = sum(r["seconds"] for r in rows) / len(rows) * (epochs - row["epoch"])
    readings = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("epoch", "seconds"))
    return f"epoch {row['epoch']:.0f}/{epochs}  {readings}  {duration(left)} left"


def _is_power_of_two(n):
    return n & (n - 1) == 0
