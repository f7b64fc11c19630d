"""A torch recommender that was here before RecSAE, and the six lines that plug RecSAE in beside it.

    python examples/torch_server.py 127.0.0.1:50061 127.0.0.1:50052

It exports at the first address and follows the plans of the interpreter at the second. A line of input is a request,
`USER ITEM ITEM ...`; a line of output answers it: what steering did, then the ten best items.
"""

import sys
from functools import partial

import torch

from recsae.sdk.torch import attach


class Gru(torch.nn.Module):
    """The newest state of a GRU over right-padded histories scores every item."""

    def __init__(self, items: int, dim: int) -> None:
        super().__init__()
        self.items = torch.nn.Embedding(items + 1, dim, padding_idx=0)
        self.gru = torch.nn.GRU(dim, dim, batch_first=True)

    def forward(self, history: torch.Tensor) -> torch.Tensor:  # noqa: D102
        states, _ = self.gru(self.items(history))
        return states[torch.arange(len(history)), (history != 0).sum(1) - 1] @ self.items.weight[1:].T


torch.manual_seed(0)
ids, answer, model = [f"i-{item}" for item in range(1, 61)], partial(print, flush=True), Gru(60, dim=16).eval()

tap = attach(model, "gru", row="last", hook="sequence")
exporter = tap.exporter(name="tiny", items=ids, embed=lambda x: model(x.history), item_vectors=model.items.weight[1:])
answer("ready", exporter.serve(sys.argv[1]).port, exporter.version)
tap.follow(sys.argv[2])
for user, *history in map(str.split, sys.stdin):
    with torch.no_grad(), tap.steering(user_id=user) as steering:
        scores = model(torch.tensor([[ids.index(item) + 1 for item in history]]))[0]
    answer(steering.reason, *(ids[place] for place in scores.topk(10).indices))
