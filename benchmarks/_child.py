"""The far side of `_measure.fresh`: ``python -m benchmarks._child ANSWER MODULE:FUNCTION ARGUMENTS``."""

import importlib
import json
import sys
from pathlib import Path

from benchmarks._measure import peak_memory_mb

answer, function, arguments = sys.argv[1:]
module, name = function.split(":")
value = getattr(importlib.import_module(module), name)(*json.loads(arguments))
Path(answer).write_text(json.dumps({"value": value, "peak_mb": peak_memory_mb()}), encoding="utf-8")
