"""LitServe: a LitAPI whose workers decode and infer; without batches, which buy nothing on a CPU."""

from __future__ import annotations

import os

import litserve as ls

from benchmarks.peers.recipe import Recipe, workers


class ImageClassifier(ls.LitAPI):
    def setup(self, device):
        self.recipe = Recipe()

    def decode_request(self, request):
        return self.recipe.pixels(request["image"].file)[None]

    def predict(self, images):
        return self.recipe.probabilities(images)

    def encode_response(self, probabilities):
        return self.recipe.reply(probabilities[0])


if __name__ == "__main__":
    server = ls.LitServer(ImageClassifier(), accelerator="cpu", workers_per_device=workers())
    server.run(
        host="127.0.0.1", port=int(os.environ["PEER_PORT"]), log_level="warning", generate_client_file=False
    )
