"""Maps, which protobuf stores as repeated entries of key and value."""

from google.protobuf.descriptor import FieldDescriptor


def is_map(field: FieldDescriptor) -> bool:
    """Whether a repeated field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def key_of(field: FieldDescriptor) -> FieldDescriptor:
    """The key's field of a map."""
    return _entry(field, "key")


def value_of(field: FieldDescriptor) -> FieldDescriptor:
    """The value's field of a map."""
    return _entry(field, "value")


def _entry(field: FieldDescriptor, name: str) -> FieldDescriptor:
    if field.message_type is None:
        raise TypeError(f"{field.full_name} is no map")
    return field.message_type.fields_by_name[name]
