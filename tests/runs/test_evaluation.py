import numpy as np
import pytest

from cdc_keras.runs.evaluation import classification_scores, confusion

LOGITS = np.log(np.array([[0.5, 0.2, 0.1, 0.1, 0.05, 0.04, 0.01], [0.01, 0.02, 0.03, 0.04, 0.1, 0.3, 0.5]]))


def test_scores_are_those_of_the_closed_form():
    scores = classification_scores(LOGITS, np.array([0, 0]))
    assert scores == pytest.approx({"top1": 0.5, "top5": 0.5, "loss": -(np.log(0.5) + np.log(0.01)) / 2})


def test_the_fifth_highest_logit_counts_for_top_5_and_the_sixth_does_not():
    assert classification_scores(LOGITS[:1], np.array([4]))["top5"] == 1
    assert classification_scores(LOGITS[:1], np.array([5]))["top5"] == 0


def test_large_logits_do_not_overflow():
    assert classification_scores(1e4 * np.eye(3), np.arange(3))["loss"] == 0


def test_rows_of_the_confusion_matrix_are_the_true_categories():
    counts = confusion(predictions=np.array([1, 1, 2]), labels=np.array([0, 0, 2]), classes=3)
    np.testing.assert_array_equal(counts, [[0, 2, 0], [0, 0, 0], [0, 0, 1]])
