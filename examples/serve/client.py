"""Asks a running page from Python, and takes its report along: python client.py http://127.0.0.1:7860 picture.png"""

import base64
import sys
from pathlib import Path

from gradio_client import Client

url, picture = sys.argv[1:]
client = Client(url, verbose=False)  # auth=("me", password) where the server asks for one

data = base64.b64encode(Path(picture).read_bytes()).decode()
shown = [{"data": f"data:image/png;base64,{data}"}]
_, said, *_ = client.predict(pictures=shown, question="Describe the image.", api_name="/ask")
if said["kind"] == "error":
    sys.exit(said["text"])
print(said["text"])

# The server remembers the last answer of this client.
_, changes, *_ = client.predict(api_name="/hide_top")
lost = min(changes["tokens"], key=lambda token: token["after"] - token["before"])
print(f"Without the hottest tenth {lost['text']!r} falls from {lost['before']:.2f} to {lost['after']:.2f}.")

file, _ = client.predict(api_name="/report")
Path(file["name"]).write_bytes(base64.b64decode(file["data"]))
print(f"The report is in {file['name']}.")
