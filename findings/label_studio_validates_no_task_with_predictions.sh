#!/usr/bin/env bash
# label-studio-sdk 2.1.2: LabelInterface.validate_task() of any task that holds predictions, or annotations, raises
# TypeError: it calls validate_prediction() without the prediction. The prediction by itself validates.
# Seen on Linux, CPython 3.11: "prediction: []", "data alone: True", "with its prediction: TypeError".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check label-studio-sdk==2.1.2
cat > "$folder/validate.py" <<'PY'
from label_studio_sdk.label_interface import LabelInterface

interface = LabelInterface(
    '<View><Text name="answer" value="$answer"/><Labels name="words" toName="answer"><Label value="token"/></Labels></View>'
)
value = {"start": 0, "end": 3, "text": "cat", "labels": ["token"]}
region = {"id": "a", "from_name": "words", "to_name": "answer", "type": "labels", "value": value}
task = {"data": {"answer": "cat"}, "predictions": [{"result": [region]}]}
print("prediction:", interface.validate_prediction(task["predictions"][0], return_errors=True))
print("data alone:", interface.validate_task({"data": task["data"]}))
try:
    print("with its prediction:", interface.validate_task(task))
except TypeError:
    print("with its prediction: TypeError")
PY
"$folder/venv/bin/python" "$folder/validate.py" | tee "$folder/seen"
diff "$folder/seen" - <<'SEEN'
prediction: []
data alone: True
with its prediction: TypeError
SEEN
