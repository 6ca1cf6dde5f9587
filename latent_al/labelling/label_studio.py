"""Files for Label Studio: the labelling configuration, and a batch of tasks. Tried with its release 1.23.2."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from urllib.parse import quote

import pandas as pd

from latent_al.labelling.tables import CONTROL
from latent_al.types import BadInput

IMAGE = "image"


def labelling_config(classes: Sequence[str]) -> str:
    """Returns the XML to paste into a project's labelling interface; without classes it says where to add them.

    Raises:
        BadInput: a name that XML cannot hold.
    """
    view = ET.Element("View")
    ET.SubElement(view, "Image", name=IMAGE, value=f"${IMAGE}")
    choices = ET.SubElement(view, "Choices", name=CONTROL, toName=IMAGE, choice="single")
    for name in classes:
        ET.SubElement(choices, "Choice", value=_checked(name))
    if not classes:
        choices.append(ET.Comment(' Add one line for each of your classes: <Choice value="its name"/> '))
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def tasks(queries: pd.DataFrame, *, root_name: str, round_index: int, classes: Sequence[str]) -> list[dict]:
    """Returns the tasks to import, one per query, in the order of the queries.

    Args:
        queries: columns id, file_name, rank, reason, prediction and confidence, in [0, 1]; "" and NaN without one.
        root_name: the folder of the images as seen from Label Studio's document root.
        round_index: names the model whose predictions these are.
        classes: the names that may be predicted.

    Raises:
        ValueError: a prediction of another class, or a confidence outside [0, 1]: Label Studio would accept both.
    """
    return [
        {"data": _data(query, root_name), "predictions": _predictions(query, round_index, classes)}
        for query in queries.itertuples()
    ]


def _data(query, root_name):
    return {
        IMAGE: "/data/local-files/?d=" + quote(f"{root_name}/{query.file_name}"),
        "latent_al_id": query.id,
        "file_name": query.file_name,
        "rank": int(query.rank),
        "reason": query.reason,
    }


def _predictions(query, round_index, classes):
    if query.prediction == "":
        return []
    if query.prediction not in classes:
        raise ValueError(f"{query.file_name} has the prediction {query.prediction!r}; expected one of {list(classes)}.")
    # NaN is in no range either.
    if not 0 <= query.confidence <= 1:
        raise ValueError(f"the confidence of {query.file_name} is {query.confidence}; expected 0 to 1.")
    choice = {"from_name": CONTROL, "to_name": IMAGE, "type": "choices", "value": {"choices": [query.prediction]}}
    return [{"model_version": f"latent_al-r{round_index:03d}", "score": float(query.confidence), "result": [choice]}]


def _checked(name):
    try:
        ET.fromstring(ET.tostring(ET.Element("Choice", value=name)))
    except ET.ParseError as error:
        raise BadInput(
            f"the class name {name!r} holds a character that Label Studio's XML cannot hold ({error}); rename the "
            "class."
        ) from error
    return name
