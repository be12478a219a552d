"""A model folder as ONNX and OpenVINO files, each written only where its vectors are the folder's."""
