"""What a user would write without Crossroads: an endpoint of FastAPI and Keras. ``python -m benchmarks._endpoint MODEL PORT``."""

from __future__ import annotations

import io
import sys

import keras
import numpy as np
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image

model = keras.saving.load_model(sys.argv[1])
size = model.input_shape[1]
app = FastAPI()


@app.post("/predict")
def predict(images: UploadFile) -> list[float]:
    picture = Image.open(io.BytesIO(images.file.read())).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(model(np.asarray(picture)[None], training=False))[0].tolist()


uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
