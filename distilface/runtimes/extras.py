"""The extras of the runtimes."""

from distilface.extras import Extra

ONNX = Extra("ONNX files", ("onnx", "onnxruntime", "onnxscript"), "onnx")
OPENVINO = Extra("OpenVINO files", ("openvino",), "openvino")
OPENVINO_INT8 = Extra("int8 files of OpenVINO", ("openvino", "nncf"), "openvino")
RAY = Extra("the workers of --engine ray", ("ray",), "ray")
