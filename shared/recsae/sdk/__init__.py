"""What a production recommender embeds to plug in beside RecSAE: export activations, rank, follow steering plans.

Needs the base dependencies alone; `recsae.sdk.torch` needs torch besides. Start at `torch.attach` for a torch model,
at `exporter.Exporter` for any other.
"""
