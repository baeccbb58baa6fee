"""mosec: one stage of worker processes behind its Rust front; the body is the image, JSON is the reply."""

from __future__ import annotations

import io

from mosec import Server, ValidationError, Worker

from benchmarks.peers.recipe import Recipe, workers


class ImageClassifier(Worker):
    def __init__(self):
        super().__init__()
        self.recipe = Recipe()

    def deserialize(self, data: bytes):
        try:
            return self.recipe.pixels(io.BytesIO(data))
        except OSError as error:
            raise ValidationError(f"cannot decode as image data: {error}") from error

    def forward(self, data):
        return self.recipe.reply(self.recipe.probabilities(data[None])[0])


if __name__ == "__main__":
    server = Server()
    server.append_worker(ImageClassifier, num=workers(), env=[{"OMP_NUM_THREADS": "1"}] * workers(), timeout=60)
    server.run()
