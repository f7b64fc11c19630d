"""The checks, one module per thing they look at. They know the contract's messages and no transport."""
