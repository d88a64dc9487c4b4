"""From a configuration to a finished run: build, train epoch by epoch, validate, checkpoint, go on where it stopped."""

import dataclasses
import os

import keras

from cdc_keras import choices
from cdc_keras.config import RunConfig
from cdc_keras.data.dataset import StreamSplit
from cdc_keras.data.load import load_dataset
from cdc_keras.data.pipeline import training_batches
from cdc_keras.devices import distribution, precision
from cdc_keras.errors import UserError
from cdc_keras.progress import say
from cdc_keras.runs.callbacks import Course, callbacks_of
from cdc_keras.runs.environment import environment
from cdc_keras.runs.folder import RunFolder
from cdc_keras.runs.pictures import draw_training
from cdc_keras.runs.scoring import score
from cdc_keras.runs.trained import load_context, load_painter, load_teacher, untrained_model
from cdc_keras.trainers.build import extractor_of, ramp_steps
from cdc_keras.trainers.disentangler import Disentangler
from cdc_keras.weights import save_weights, sha256


@precision.keras_defaults()
def train(config: RunConfig, run_dir: str | os.PathLike, *, pictures: bool = True) -> RunFolder:
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
        distribution.on_any_worker(False)  # the chief is still writing when the others are done
        return run


def _train(config, run, pictures):
    dataset = load_dataset(config)
    config = _settled(config.resolved(dataset.image_size), run)
    steps_per_epoch = len(dataset.train) // config.batch_size
    if not steps_per_epoch:
        raise UserError(
            f"batch_size is {config.batch_size} but there are only {len(dataset.train)} training images; lower it"
        )
    if config.batch_size % (replicas := distribution.replicas()):
        raise UserError(f"a batch of {config.batch_size} cannot be shared equally among {replicas} devices; change it")
    if isinstance(dataset.train, StreamSplit) and keras.backend.backend() != "tensorflow":
        raise UserError(
            "crop_area decodes images on the way, which needs KERAS_BACKEND=tensorflow; leave crop_area out"
        )
    run.check(config)
    if not distribution.agreed(max(run.steps(), default=0)):
        raise UserError(f"{run.path} is not the same folder on every worker; put it on a file system that all share")
    extractor = teacher = painting = None
    if config.gated and config.gate_attention and not run.steps():
        extractor = load_context(config)
    if config.teacher is not None and not run.finished:
        teacher = load_teacher(config, dataset.class_names)
    if config.counterfactual_share and not run.finished:
        painting, painter_sha256 = load_painter(config, dataset.class_names)
    model = untrained_model(config, len(dataset.class_names), run, steps_per_epoch, extractor, teacher, painting)
    with distribution.chief_first():
        run.create(config, extractor)
        run.check_data(dataset)
        run.check_fingerprint(model)
    with run.lock():
        run.remove_partial_files()
        if teacher is not None:
            _meet(teacher, run, dataset, config)
            run.note(transfer=model.pairs)
        if painting is not None:
            _check_painter(painter_sha256, run, config)
        _fit(Course(model, run, dataset, config, steps_per_epoch, rows=[]), pictures)


def _settled(config, run):
    """Returns the config in the precision that "auto" stands for: the run's so far, or else the fastest of all workers.

    Says so where another precision would be faster.
    """
    if config.precision == choices.AUTO:
        chosen = run.config().precision if run.config_path.is_file() else precision.fastest()
        if not distribution.agreed(choices.PRECISIONS.index(chosen)):
            chosen = "float32"
        config = dataclasses.replace(config, precision=chosen)
    if precision.slower_than_float32(config.precision):
        say(f"{config.precision} is slow on this processor, which lacks instructions for it; float32 would be faster")
    return config


def _fit(course, pictures):
    """Trains the epochs that are missing."""
    model, run, dataset, config = course.model, course.run, course.dataset, course.config
    step, steps_per_epoch = run.load_checkpoint(model), course.steps_per_epoch
    course.rows.extend(run.rows()[: step // steps_per_epoch])
    if step:
        _tell(run, f"going on after step {step}")
    if step >= course.total:
        if not run.finished:  # stopped between the last checkpoint and the note of the end
            _finish(course, pictures)
        _tell(run, f"{run.path} is finished: {config.epochs} epochs; cdc-keras evaluate --model={run.path} scores it")
        return
    if step:
        run.note(resumed=[*run.notes().get("resumed", []), {"step": step, **environment()}])
    else:
        run.note(**environment(), steps_per_epoch=steps_per_epoch, train_images=len(dataset.train))
        _note_short_ramp(run, config, steps_per_epoch)

    callbacks, progress, stop = callbacks_of(course, pictures)
    with progress, stop:
        while step < course.total and not stop.agreed:
            epoch, first_step = divmod(step, steps_per_epoch)
            if not first_step:
                _renew(model, config, epoch)
            if not config.classifies and epoch >= config.epochs - config.decoder_epochs:
                model.freeze_encoder()
            model.resumes_in_mid_epoch = first_step > 0
            model.fit(
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
                steps_per_epoch=-(-(steps_per_epoch - first_step) // course.steps_per_batch_end),
                initial_epoch=epoch,
                epochs=epoch + 1,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )
            step = model.steps_done
    if step < course.total:
        _tell(run, f"saved after step {step} of {course.total}; the same command goes on from there")
    else:
        _finish(course, pictures)


def _renew(model, config, epoch):
    """Lets one of the discriminators start afresh, if it is its turn at the beginning of this epoch, from 0."""
    every = config.discriminator_reset_epochs
    if every and epoch and epoch % every == 0 and isinstance(model, Disentangler) and model.adversarial:
        model.renew_discriminator((epoch // every - 1) % config.discriminators, epoch)


def _tell(run, text):
    """Prints a line on standard error; of several workers only the chief speaks."""
    if run.writes:
        say(text)


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
    noted = run.notes().get("teacher")
    if noted is None:
        name, split = next((n, s) for n in ("validation", "test") if len(s := getattr(dataset, n)))
        metrics = score(teacher.network, split, teacher.config).metrics
        run.note(teacher={"sha256": teacher.sha256, "split": name, **metrics})
        _tell(run, f"teacher {config.teacher}: top-1 {metrics['top1']:.2%} on {name}")
    elif noted["sha256"] != teacher.sha256:
        raise UserError(f"the teacher in {config.teacher} has other weights than when {run.path} was started")


def _check_painter(sha256_of_painter, run, config):
    """Notes what paints, or checks that it is still the one of the start."""
    noted = run.notes().get("painter_sha256")
    if noted is None:
        run.note(painter_sha256=sha256_of_painter)
    elif noted != sha256_of_painter:
        place = config.painter or config.extractor
        raise UserError(f"the painter in {place} has other weights than when {run.path} was started")


def _finish(course, pictures):
    """Draws and notes the end of a run; an extractor's weights appear in its folder only now."""
    run, config = course.run, course.config
    if not run.writes:
        return
    if pictures:
        distribution.in_one_worker(lambda: draw_training(course.model, run, course.dataset, course.rows))
    end = {}
    if config.task == "extractor":
        save_weights(extractor_of(course.model, config), run.extractor_weights)
        end["extractor_sha256"] = sha256(run.extractor_weights)
    hours = run.notes().get("train_seconds", 0.0) / 3600
    run.note(finished=True, epochs=config.epochs, hours=hours, last_epoch=course.rows[-1], **end)
