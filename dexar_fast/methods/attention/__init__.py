"""Methods that read a model's attention: raw, times its gradient, rolled out over layers, as Chefer's relevancy."""
