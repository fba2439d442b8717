"""`python3 -m thaw run FILE::OBJECT.METHOD`: see local."""

import sys

from .local import main

sys.exit(main(sys.argv[1:]))
