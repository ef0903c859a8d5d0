"""Who can run a part of a model: the contract, discovery, and a folder for each backend."""
