"""Take a model out of PyTorch: one ONNX file that says how pictures become its inputs."""
