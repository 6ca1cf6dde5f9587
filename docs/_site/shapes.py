"""Shapes of arrays in signatures, as they are written."""

from griffe import Expr, ExprSubscript, ExprTuple, Extension

KINDS = {"Bool", "Float", "Int", "Num", "Shaped", "UInt8"}
"""Types of jaxtyping whose second part is a shape."""


class Shapes(Extension):
    """Writes shapes back as strings, without padding, where they were read as the names and the code in them."""

    def on_function(self, *, func, **kwargs):
        """Mends the signature of a function."""
        for parameter in func.parameters:
            mend(parameter.annotation)
        mend(func.returns)

    def on_attribute(self, *, attr, **kwargs):
        """Mends the type of a field."""
        mend(attr.annotation)


def mend(annotation):
    """Writes all shapes in an annotation as strings, in place."""
    if not isinstance(annotation, Expr):
        return
    for part in annotation.iterate(flat=False):
        if part is not annotation:
            mend(part)
    is_array = isinstance(annotation, ExprSubscript) and str(annotation.left) in KINDS
    if is_array and isinstance(annotation.slice, ExprTuple):
        shape = str(annotation.slice.elements[1]).strip("\"' ")
        annotation.slice.elements[1] = f'"{shape}"'
