"""Image sets, their readers and the order in which batches are drawn."""
