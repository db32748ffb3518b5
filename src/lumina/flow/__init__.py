"""The flow from noise to data: guidance, and the steps of a sampler."""
