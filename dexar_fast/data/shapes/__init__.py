"""The Shapes set: seeded scenes of coloured shapes, with masks, questions and labelled answers.

A scene is a pure function of its seed. `layout(seed)` says what is where (cheap), `draw_scene(seed)` paints it: one to
three shapes, on which the embedded model was trained. `overlapping(seed)`, `crowd(seed)` and `harder_questions` are
harder than that. Answers are sequences of words, each labelled colour, shape, number, relation or filler, so that
attribution to visual words can be scored against the masks of the objects that a word speaks of.
"""

from dexar_fast.data.shapes.harder import (
    color_of_absent,
    harder_questions,
    how_many,
    is_placed,
)
from dexar_fast.data.shapes.layouts import SIZE, Placed, crowd, layout, overlapping
from dexar_fast.data.shapes.outlines import COLORS, SHAPES
from dexar_fast.data.shapes.questions import (
    QUESTION_KINDS,
    absent_questions,
    color_questions,
    describe,
    is_there,
    present_questions,
    sample_questions,
    shape_questions,
    what_color,
    which_shape,
)
from dexar_fast.data.shapes.scenes import Scene, draw_scene, paint
from dexar_fast.data.shapes.words import Question, Word

__all__ = [
    "COLORS",
    "QUESTION_KINDS",
    "SHAPES",
    "SIZE",
    "Placed",
    "Question",
    "Scene",
    "Word",
    "absent_questions",
    "color_of_absent",
    "color_questions",
    "crowd",
    "describe",
    "draw_scene",
    "harder_questions",
    "how_many",
    "is_placed",
    "is_there",
    "layout",
    "overlapping",
    "paint",
    "present_questions",
    "sample_questions",
    "shape_questions",
    "what_color",
    "which_shape",
]
