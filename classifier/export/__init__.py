"""Trained models for other runtimes: ONNX, OpenVINO, torch.export; each agrees with the model, or is refused."""
