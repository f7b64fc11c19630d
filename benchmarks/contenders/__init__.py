"""One module per implementation of a TopK SAE training step, all behind `contract.Contender`."""
