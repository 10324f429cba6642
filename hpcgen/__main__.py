"""`python -m hpcgen`: the same as the command `hpcgen`."""

import sys

from hpcgen.cli import main

sys.exit(main())
