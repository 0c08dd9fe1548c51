"""The declarative base of this service's entities."""

from enum import StrEnum

from sqlalchemy import Enum, LargeBinary
from sqlalchemy.orm import DeclarativeBase

from espalier_common.db import TYPES, new_metadata


class Base(DeclarativeBase):
    """Base of all entities. States are plain text in the database: a new one needs no ALTER TYPE."""

    metadata = new_metadata()
    type_annotation_map = TYPES | {StrEnum: Enum(StrEnum, native_enum=False, length=32), bytes: LargeBinary}
