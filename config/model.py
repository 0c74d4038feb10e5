"""The base of every settings model: strict, closed, immutable, documented by its docstrings."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Part of a file: unknown keys, wrong types and infinities are errors."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
