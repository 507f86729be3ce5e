"""Preset folders of keras-hub with small networks and random weights, as `save_to_preset` writes them."""

from pathlib import Path

import keras_hub
import numpy as np

models, layers = keras_hub.models, keras_hub.layers


def small_resnet():
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 16],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
    )


def small_mobilenet():
    return models.MobileNetBackbone(
        stackwise_expansion=[[16, 24], [32, 48]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[8, 8], [16, 16]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [1, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=32,
        input_activation="hard_swish",
        output_activation="hard_swish",
        input_num_filters=8,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=32,
    )


def small_densenet():
    return models.DenseNetBackbone(stackwise_num_repeats=[1, 1])


def small_xception():
    return models.XceptionBackbone(
        stackwise_conv_filters=[[8, 16], [16, 16]], stackwise_pooling=[True, False]
    )


def small_vgg():
    return models.VGGBackbone(stackwise_num_repeats=[1, 1], stackwise_num_filters=[8, 16])


def small_csp():
    return models.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2],
        stackwise_strides=[2, 2],
        stackwise_num_filters=[16, 32],
        stage_type="dark",
        block_type="dark_block",
    )


def small_hgnet():
    return models.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=16,
        hidden_sizes=[16, 32],
        stem_channels=[3, 16, 16],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[[16, 8, 16, 1, 3, 3], [16, 8, 32, 1, 3, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
    )


def small_vit():
    return models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16
    )


def small_swin():
    return models.SwinTransformerBackbone(
        image_shape=(32, 32, 3), embed_dim=8, depths=[1, 1], num_heads=[2, 2], window_size=4, patch_size=4
    )


CONVERTERS = {
    "ResNetBackbone": layers.ResNetImageConverter,
    "MobileNetBackbone": layers.MobileNetImageConverter,
    "DenseNetBackbone": layers.DenseNetImageConverter,
    "XceptionBackbone": layers.XceptionImageConverter,
    "VGGBackbone": layers.VGGImageConverter,
    "CSPNetBackbone": layers.CSPNetImageConverter,
    "HGNetV2Backbone": layers.HGNetV2ImageConverter,
    "ViTBackbone": layers.ViTImageConverter,
    "SwinTransformerBackbone": layers.SwinTransformerImageConverter,
}


def preset_folder(folder: Path, network, **converter) -> Path:
    """Drawn running statistics too: those of a new network would hide a site that is left out."""
    rng = np.random.default_rng(0)
    for weight in network.weights:
        if weight.path.endswith(("moving_mean", "moving_variance")):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    network.save_to_preset(folder)
    if converter:
        CONVERTERS[type(network).__name__](**converter).save_to_preset(folder)
    return folder
