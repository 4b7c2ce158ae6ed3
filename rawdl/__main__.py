"""``python -m rawdl``: the command line."""

import sys

from rawdl.cli.main import main

sys.exit(main())
