"""The recipe of most tutorials: Flask, eager float32 torch, torchvision's transforms, gunicorn's plain workers.

Kinder than most of them: no gradients. Torch starts a thread for each core in each worker, as it does where nobody
tells it otherwise; ``PEER_TORCH_THREADS=1`` tells it.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import torch
from flask import Flask, jsonify, request
from PIL import Image

try:
    import torchvision
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    # A torchvision built for CUDA on a CPU torch misses two operators that classification never calls: declare them.
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
from torchvision import transforms

app = Flask(__name__)
manifest = json.loads((Path(os.environ["PEER_ARTIFACT"]).parent / "manifest.json").read_text(encoding="utf-8"))
labels = manifest["labels"]["en"]

if "PEER_TORCH_THREADS" in os.environ:
    torch.set_num_threads(int(os.environ["PEER_TORCH_THREADS"]))
model = torchvision.models.resnet18(num_classes=len(labels))
model.load_state_dict(torch.load(os.environ["PEER_WEIGHTS"], map_location="cpu", weights_only=True))
model.eval()

transform = transforms.Compose(
    [
        transforms.Resize(manifest["resize"]),
        transforms.CenterCrop(manifest["size"]),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


@app.route("/")
def hello():
    return "Hello World!"


@app.route("/predict", methods=["POST"])
def predict():
    image = Image.open(io.BytesIO(request.files["image"].read())).convert("RGB")
    with torch.no_grad():
        probabilities = torch.softmax(model(transform(image).unsqueeze(0)), dim=1)[0]
    best = int(probabilities.argmax())
    return jsonify({"class_id": best, "label": labels[best], "probability": float(probabilities[best])})
