"""python3 -m thaw.describe FILE, as the SDK has it."""

import json
import os
import runpy
import sys
import traceback

out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
try:
    json.dump(runpy.run_path(sys.argv[1])["DOCUMENT"], out)
except BaseException as err:
    json.dump({"error": {"type": type(err).__name__, "message": str(err), "traceback": traceback.format_exc()}}, out)
    out.flush()
    sys.exit(1)
