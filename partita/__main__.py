"""`python -m partita`: the same as the command `partita`."""

from __future__ import annotations

import sys

from partita.cli import main

sys.exit(main())
