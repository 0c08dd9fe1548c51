"""Prints the OpenAPI document: `python -m espalier_gateway.openapi`. The console's types are made from it."""

import sys

from espalier_gateway.contract import read_contract
from espalier_gateway.credentials import CookieNames
from espalier_gateway.openapi.document import build_document


def main() -> None:
    document = build_document(read_contract(), origin="http://127.0.0.1:8080", cookies=CookieNames.of(secure=False))
    sys.stdout.buffer.write(document + b"\n")


if __name__ == "__main__":
    main()
