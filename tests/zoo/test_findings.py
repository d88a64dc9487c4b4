"""Findings of an audit: their table, their sentences, and values that cannot be."""

import pytest

from cdc_keras.errors import UserError
from cdc_keras.zoo.findings import Audit, Finding, Tolerance, headline, table

FINDINGS = (
    Finding("category", "context", "linear", 0.2, 0.1, 0.3, 0.1),
    Finding("category", "context", "discriminator", 0.14, 0.12, 0.15, 0.1),
    Finding("category", "gm", "linear", 0.5, 0.4, 0.6, 0.1),
    Finding("condition", "gm swap", "classifier", 0.5, 0.4, 0.6, 0.1),
    Finding("hue", "pixels", "linear", 0.9, 0.85, 0.95, 0.16),
)


def test_the_table_has_rows_of_features_and_columns_of_readers():
    head, rows = table(FINDINGS)
    assert head == ["target", "read from", "linear", "its own D", "the classifier", "chance"]
    assert rows[:2] == [
        ["the category", "T", "20.0% (10.0 to 30.0)", "14.0% (12.0 to 15.0)", "", "10.0%"],
        ["the category", "T of gm", "50.0% (40.0 to 60.0)", "", "", "10.0%"],
    ]
    assert rows[2][:2] == ["the condition swapped in", "T of gm, decoded under another category"]
    assert rows[3] == ["hue", "pixels", "90.0% (85.0 to 95.0)", "", "", "16.0%"]


def test_the_strongest_probe_is_no_player_and_of_the_category():
    audit = Audit(0, 9, {}, None, 1, 1, {}, FINDINGS)
    assert audit.strongest("context") == FINDINGS[0] and audit.strongest("gm") == FINDINGS[2]
    assert audit.strongest("pixels") is None  # its one finding is of the hue
    assert "from T for 20.0% of the images" in headline(audit) and "by chance it would be 10.0%" in headline(audit)
    assert headline(Audit(0, 9, {}, None, 1, 1, {}, ())) == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accuracy": 0.05}, "audit.accuracy is to be within its interval"),
        ({"high": 1.5}, "audit.accuracy"),
        ({"chance": -1.0}, "audit.chance is to be in"),
        ({"reader": "eye"}, "audit.reader is to be one of linear"),
        ({"features": "a | b"}, "audit.features is to be a plain word"),
        ({"target": "<b>"}, "audit.target is to be a plain word"),
    ],
)
def test_a_finding_that_cannot_be_is_refused(values, message):
    good = {"target": "hue", "features": "gm swap", "reader": "knn", "accuracy": 0.2, "low": 0.1, "high": 0.3}
    with pytest.raises(UserError, match=message):
        Finding(**{**good, "chance": 0.1, **values})
    with pytest.raises(UserError, match="audit.erased.context"):
        Audit(0, 9, {}, None, 1, 1, {"context": -1.0}, ())
    with pytest.raises(UserError, match="audit.rivals.gm is to be a sha256"):
        Audit(0, 9, {"gm": "x"}, None, 1, 1, {}, ())
    with pytest.raises(UserError, match="audit.seed is to be 0 or more"):
        Audit(-1, 9, {}, None, 1, 1, {}, ())
    with pytest.raises(UserError, match="audit.tolerance.probes is to be more than 0 and at most 0.1"):
        Tolerance(probes=0.5)
