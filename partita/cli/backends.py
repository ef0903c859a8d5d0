"""`partita backends`: who could run a model, here."""

from __future__ import annotations

import argparse

from partita.cli.options import Commands, add_command, add_json_option
from partita.cli.text import columns, print_json

EXAMPLES = """\
  partita backends
  partita backends --json
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "backends",
        "list the backends, and what they lack on this machine",
        "Lists the backends: their names, the packages that bring them, and whether this machine can run them.",
        EXAMPLES,
    )
    add_json_option(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    from partita.backends import discovery

    offers = discovery.available()
    if options.json:
        print_json(
            [
                {
                    "name": offer.name,
                    "owner": offer.owner,
                    "available": offer.availability.available,
                    "detail": offer.availability.detail,
                }
                for offer in offers
            ]
        )
        return 0
    rows = [
        (offer.name, offer.owner, "yes" if offer.availability.available else "no", offer.availability.detail)
        for offer in offers
    ]
    print(columns([("name", "package", "usable", "detail"), *rows], indent=""))
    return 0
