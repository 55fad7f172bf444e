"""The graph of an artifact behind LitServe: ``python _litserve_endpoint.py GRAPH SIZE PORT BATCH WORKERS``.

It is run by a Python that has LitServe and OpenVINO, and needs nothing else of this repository.
"""

import io
import sys

import litserve
import numpy as np
import openvino
from fastapi import UploadFile
from PIL import Image

graph, size, port, batch, workers = sys.argv[1], *map(int, sys.argv[2:6])


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.model = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def decode_request(self, request: UploadFile):
        picture = Image.open(io.BytesIO(request.file.read())).convert("RGB")
        return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, pixels):
        return self.model(pixels if pixels.ndim == 4 else pixels[None])[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"probabilities": np.ravel(output).tolist()}


if __name__ == "__main__":
    api = Classifier(max_batch_size=batch, batch_timeout=0.005) if batch > 1 else Classifier()
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers)
    server.run(port=port, generate_client_file=False, log_level="warning")
