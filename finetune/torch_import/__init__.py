"""PyTorch classifiers as Keras models: the network is read off the names and shapes of the state dict.

`finetune import` takes the layouts of torchvision and timm for ResNet (18 to 152, wide ones too) and MobileNetV2.
"""

from finetune.torch_import.importing import Imported, import_state_dict

__all__ = ["Imported", "import_state_dict"]
