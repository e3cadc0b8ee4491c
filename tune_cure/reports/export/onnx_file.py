"""An exported network in the ONNX format, for runtimes other than PyTorch, checked against the network itself."""

import warnings

import torch

from tune_cure.models import checkpoints
from tune_cure.reports.export.bundle import ExportedModel
from tune_cure.reports.export.measurements import ExportError

INPUT, OUTPUT = "images", "logits"
DEFAULT_SIZE = (32, 32)  # pixels, for weights that do not record the size of their images
BATCHES = (1, 5)  # numbers of images that the check runs; the file was made with another one
TOLERANCE = 1e-4  # of the largest logit: another order of float32 sums, and no more


def build_onnx(model: ExportedModel) -> bytes:
    """Return the network as an ONNX file: input `images` (N, C, H, W) in [0, 1], output `logits` (N, classes).

    N is free; C, H and W are those of the training images. The file is run by onnxruntime on random images before it
    is returned.

    Raises:
        ExportError: The network cannot be written so, or the file gives other logits than the network.
    """
    network = checkpoints.rebuild({"model": dict(model.network), "weights": model.weights}, trust_code=True).eval()
    shape = (model.network["in_channels"], *(model.image_size or DEFAULT_SIZE))
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own code
            program = torch.onnx.export(
                network,
                (images,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"--onnx: {model.network['name']} cannot be written as ONNX: {reason}") from error
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    _check(content, network, shape)
    return content


def _check(content: bytes, network: torch.nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a file whose logits differ from the network's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    for count in BATCHES:
        images = torch.rand(count, *shape, generator=generator)
        with torch.no_grad():
            expected = network(images)
        found = torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
        if found.shape != expected.shape or not torch.allclose(
            found, expected, rtol=0, atol=TOLERANCE * float(expected.abs().max())
        ):
            raise ExportError(f"--onnx: the file gives other logits than the network, for {count} random images")
