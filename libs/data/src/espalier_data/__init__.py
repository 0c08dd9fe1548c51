"""Training data: formats, row checks, chat templates, tokens with a loss mask.

The dataset report, the preview, the training and the serving check all go through this one package; see README.md.
"""

from espalier_data.errors import DataError, TemplateError, TokenizerError, UnknownFormat, UnreadableFile
from espalier_data.examples import Conversation, Example, Message, Role, Text
from espalier_data.findings import Finding, Reason, Severity
from espalier_data.formats import Format
from espalier_data.report import Limits, Report, check_file
from espalier_data.rows import Row, detect_format, read_rows
from espalier_data.templates import ChatTemplate, Segment, chat_template, template_names

__all__ = [
    "ChatTemplate",
    "Conversation",
    "DataError",
    "Example",
    "Finding",
    "Format",
    "Limits",
    "Message",
    "Reason",
    "Report",
    "Role",
    "Row",
    "Segment",
    "Severity",
    "TemplateError",
    "Text",
    "TokenizerError",
    "UnknownFormat",
    "UnreadableFile",
    "chat_template",
    "check_file",
    "detect_format",
    "read_rows",
    "template_names",
]
