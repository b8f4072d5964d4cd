"""The formats of every edition."""

import pytest

from abaw_expr.tasks.task import AU, EXPR, VA
from submissions.formats import FORMATS, MULTI_TASK, Format, per_video, recognise

COMPOUND = "image_location,Fearfully_Surprised,Happily_Surprised,Sadly_Angry"


def test_headers_and_fields_are_the_organisers() -> None:
    headers = {known.name: known.header for known in FORMATS}
    assert headers == {
        "expr": "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
        "va": "image_location,valence,arousal",
        "au": "image_location,AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
        "multi-task": "image,valence,arousal,expression,aus",
    }
    assert [len(known.fields) for known in FORMATS] == [1, 2, 12, 15]
    assert [field.ignore_value for field in MULTI_TASK.fields] == [-5] * 2 + [-1] * 13
    assert per_video(VA).header == "valence,arousal"
    assert [(f.low, f.high, f.whole) for f in (*EXPR.fields, *VA.fields, AU.fields[0])] == [
        (0, 7, True),
        (-1, 1, False),
        (-1, 1, False),
        (0, 1, True),
    ]


@pytest.mark.parametrize("known", FORMATS)
def test_a_format_is_known_by_its_header(known: Format) -> None:
    assert recognise(known.header) is known


def test_compound_classes_are_those_of_the_header() -> None:
    found = recognise(COMPOUND)
    assert found is not None
    assert (found.header, len(found.fields), found.fields[0].high) == (COMPOUND, 1, 2)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "image_location",
        "image_location,Sad_Angry",
        "image_location,Sad_Angry,Sad_Angry",
        "image,Sad_Angry,Happy_Sad",
    ],
)
def test_anything_else_is_no_format(header: str) -> None:
    assert recognise(header) is None
