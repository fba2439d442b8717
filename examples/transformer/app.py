"""The transformer as a function: its weights are made once, in CPU memory, and every later cold boot streams them to the GPU that is there.

    python3 -m thaw run examples/transformer/app.py::Transformer.embed --json '{"sentences": ["a sentence"]}'
"""

import thaw
import transformer

app = thaw.App("transformer")


@app.cls(enable_memory_snapshot=True, gpu="any", warmup=lambda model: model.embed(["A sentence to warm up with."]))
class Transformer:
    # A model of few and narrow layers, for tests.
    small: bool = thaw.parameter(default=False)

    @thaw.enter(snap=True)
    def load(self):
        self.model = transformer.load(transformer.SMALL if self.small else transformer.CONFIG)

    @thaw.enter(snap=False)
    def setup(self):
        self.model.to(thaw.device())

    @thaw.method()
    def embed(self, sentences: list[str]) -> list[list[float]]:
        """A vector for each sentence."""
        return transformer.embed(self.model, sentences).tolist()
