"""Models in the formats of others: ONNX, and folders in the layout of the Hugging Face Hub."""
