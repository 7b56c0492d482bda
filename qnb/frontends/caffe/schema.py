"""The part of Caffe's message definitions that a reader needs, made into protobuf classes when first used.

Names and field numbers are those of BVLC Caffe; layer types of its forks have the numbers of the fork that brought them
(SSD, ShuffleNet, DeepLab). What is not listed here is skipped in files. Knows nothing of networks.
"""

from __future__ import annotations

import functools
from typing import Any

__all__ = ["V1_TYPES", "known_fields", "message_class"]

_PACKAGE = "qnb.caffe"

# name number type [=default]; a star means repeated, a plus packed
_MESSAGES = """
BlobShape: dim 1 int64+
BlobProto: num 1 int32; channels 2 int32; height 3 int32; width 4 int32; data 5 bytes*; shape 7 BlobShape
  double_data 8 bytes*; raw_data_type 10 int32; raw_data 12 bytes
UnpackedBlob: data 5 float*; double_data 8 double*
FillerParameter: type 1 string; value 2 float; min 3 float; max 4 float; mean 5 float; std 6 float; sparse 7 int32
  variance_norm 8 VarianceNorm
NetState: phase 1 Phase =TEST; level 2 int32; stage 3 string*
NetStateRule: phase 1 Phase; min_level 2 int32; max_level 3 int32; stage 4 string*; not_stage 5 string*
ParamSpec: name 1 string
InputParameter: shape 1 BlobShape*
TransformationParameter: crop_size 3 uint32
MemoryDataParameter: batch_size 1 uint32; channels 2 uint32; height 3 uint32; width 4 uint32
DummyDataParameter: num 2 uint32*; channels 3 uint32*; height 4 uint32*; width 5 uint32*; shape 6 BlobShape*
ArgMaxParameter: out_max_val 1 bool; top_k 2 uint32 =1; axis 3 int32
BatchNormParameter: use_global_stats 1 bool; moving_average_fraction 2 float; eps 3 float =1e-5; scale_bias 7 bool
BiasParameter: axis 1 int32 =1; num_axes 2 int32 =1; filler 3 FillerParameter
ClipParameter: min 1 float; max 2 float
ConcatParameter: concat_dim 1 uint32 =1; axis 2 int32 =1
ConvolutionParameter: num_output 1 uint32; bias_term 2 bool =true; pad 3 uint32*; kernel_size 4 uint32*; group 5 uint32 =1
  stride 6 uint32*; weight_filler 7 FillerParameter; bias_filler 8 FillerParameter; pad_h 9 uint32; pad_w 10 uint32
  kernel_h 11 uint32; kernel_w 12 uint32; stride_h 13 uint32; stride_w 14 uint32; engine 15 Engine; axis 16 int32 =1
  force_nd_im2col 17 bool; dilation 18 uint32*
CropParameter: axis 1 int32 =2; offset 2 uint32*
DropoutParameter: dropout_ratio 1 float =0.5
EltwiseParameter: operation 1 EltwiseOp =SUM; coeff 2 float*; stable_prod_grad 3 bool
ELUParameter: alpha 1 float =1
ExpParameter: base 1 float =-1; scale 2 float =1; shift 3 float
FlattenParameter: axis 1 int32 =1; end_axis 2 int32 =-1
InnerProductParameter: num_output 1 uint32; bias_term 2 bool =true; weight_filler 3 FillerParameter
  bias_filler 4 FillerParameter; axis 5 int32 =1; transpose 6 bool
InterpParameter: height 1 int32; width 2 int32; zoom_factor 3 int32 =1; shrink_factor 4 int32 =1; pad_beg 5 int32
  pad_end 6 int32
LogParameter: base 1 float =-1; scale 2 float =1; shift 3 float
LRNParameter: local_size 1 uint32 =5; alpha 2 float =1; beta 3 float =0.75; norm_region 4 NormRegion; k 5 float =1
  engine 6 Engine
MVNParameter: normalize_variance 1 bool =true; across_channels 2 bool; eps 3 float =1e-9
NormalizeParameter: across_spatial 1 bool =true; scale_filler 2 FillerParameter; channel_shared 3 bool =true
  eps 4 float =1e-10
PermuteParameter: order 1 uint32*
PoolingParameter: pool 1 PoolMethod; kernel_size 2 uint32; stride 3 uint32 =1; pad 4 uint32; kernel_h 5 uint32
  kernel_w 6 uint32; stride_h 7 uint32; stride_w 8 uint32; pad_h 9 uint32; pad_w 10 uint32; engine 11 Engine
  global_pooling 12 bool; round_mode 13 RoundMode; ceil_mode 20013 bool =true
PowerParameter: power 1 float =1; scale 2 float =1; shift 3 float
PReLUParameter: filler 1 FillerParameter; channel_shared 2 bool
PriorBoxParameter: min_size 1 float*; max_size 2 float*; aspect_ratio 3 float*; flip 4 bool =true; clip 5 bool
  variance 6 float*; img_size 7 uint32; img_h 8 uint32; img_w 9 uint32; step 10 float; step_h 11 float; step_w 12 float
  offset 13 float =0.5
ReductionParameter: operation 1 ReductionOp =SUM; axis 2 int32; coeff 3 float =1
ReLUParameter: negative_slope 1 float; engine 2 Engine
ReshapeParameter: shape 1 BlobShape; axis 2 int32; num_axes 3 int32 =-1
ScaleParameter: axis 1 int32 =1; num_axes 2 int32 =1; filler 3 FillerParameter; bias_term 4 bool
  bias_filler 5 FillerParameter
ShuffleChannelParameter: group 1 uint32 =1
SigmoidParameter: engine 1 Engine
SliceParameter: slice_dim 1 uint32 =1; slice_point 2 uint32*; axis 3 int32 =1
SoftmaxParameter: engine 1 Engine; axis 2 int32 =1
SwishParameter: beta 1 float =1
TanHParameter: engine 1 Engine
ThresholdParameter: threshold 1 float
TileParameter: axis 1 int32 =1; tiles 2 int32
UpsampleParameter: scale 1 int32 =1
LayerParameter: name 1 string; type 2 string; bottom 3 string*; top 4 string*; param 6 ParamSpec*; blobs 7 BlobProto*
  include 8 NetStateRule*; exclude 9 NetStateRule*; transform_param 100 TransformationParameter
  argmax_param 103 ArgMaxParameter; concat_param 104 ConcatParameter; convolution_param 106 ConvolutionParameter
  dropout_param 108 DropoutParameter; dummy_data_param 109 DummyDataParameter; eltwise_param 110 EltwiseParameter
  exp_param 111 ExpParameter; inner_product_param 117 InnerProductParameter; lrn_param 118 LRNParameter
  memory_data_param 119 MemoryDataParameter; mvn_param 120 MVNParameter; pooling_param 121 PoolingParameter
  power_param 122 PowerParameter; relu_param 123 ReLUParameter; sigmoid_param 124 SigmoidParameter
  softmax_param 125 SoftmaxParameter; slice_param 126 SliceParameter; tanh_param 127 TanHParameter
  threshold_param 128 ThresholdParameter; prelu_param 131 PReLUParameter; reshape_param 133 ReshapeParameter
  log_param 134 LogParameter; flatten_param 135 FlattenParameter; reduction_param 136 ReductionParameter
  tile_param 138 TileParameter; batch_norm_param 139 BatchNormParameter; elu_param 140 ELUParameter
  bias_param 141 BiasParameter; scale_param 142 ScaleParameter; input_param 143 InputParameter
  crop_param 144 CropParameter; swish_param 147 SwishParameter; clip_param 148 ClipParameter
  shuffle_channel_param 164 ShuffleChannelParameter; permute_param 202 PermuteParameter
  prior_box_param 203 PriorBoxParameter; norm_param 206 NormalizeParameter
  interp_param 20201 InterpParameter; upsample_param 20202 UpsampleParameter
V1LayerParameter: layer 1 V0LayerParameter; bottom 2 string*; top 3 string*; name 4 string; type 5 LayerType
  blobs 6 BlobProto*; concat_param 9 ConcatParameter; convolution_param 10 ConvolutionParameter
  dropout_param 12 DropoutParameter; inner_product_param 17 InnerProductParameter; lrn_param 18 LRNParameter
  pooling_param 19 PoolingParameter; power_param 21 PowerParameter; memory_data_param 22 MemoryDataParameter
  argmax_param 23 ArgMaxParameter; eltwise_param 24 EltwiseParameter; threshold_param 25 ThresholdParameter
  dummy_data_param 26 DummyDataParameter; relu_param 30 ReLUParameter; slice_param 31 SliceParameter
  include 32 NetStateRule*; exclude 33 NetStateRule*; mvn_param 34 MVNParameter
  transform_param 36 TransformationParameter; tanh_param 37 TanHParameter; sigmoid_param 38 SigmoidParameter
  softmax_param 39 SoftmaxParameter; exp_param 41 ExpParameter; param 1001 string*
V0LayerParameter: name 1 string; type 2 string
NetParameter: name 1 string; layers 2 V1LayerParameter*; input 3 string*; input_dim 4 int32*; state 6 NetState
  input_shape 8 BlobShape*; layer 100 LayerParameter*
"""

# Of BlobProto, `data` is declared as bytes: packed floats are the same on the wire, and need no copy one by one.
# UnpackedBlob reads the same fields where a writer did not pack them.
# PoolingParameter.ceil_mode is a fork's name for field 13; here it has a number of its own, for text alone.

_ENUMS = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "Engine": {"DEFAULT": 0, "CAFFE": 1, "CUDNN": 2},
    "VarianceNorm": {"FAN_IN": 0, "FAN_OUT": 1, "AVERAGE": 2},
    "EltwiseOp": {"PROD": 0, "SUM": 1, "MAX": 2},
    "NormRegion": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "ReductionOp": {"SUM": 1, "ASUM": 2, "SUMSQ": 3, "MEAN": 4},
}

V1_TYPES = {
    "NONE": (0, ""),
    "ACCURACY": (1, "Accuracy"),
    "BNLL": (2, "BNLL"),
    "CONCAT": (3, "Concat"),
    "CONVOLUTION": (4, "Convolution"),
    "DATA": (5, "Data"),
    "DROPOUT": (6, "Dropout"),
    "EUCLIDEAN_LOSS": (7, "EuclideanLoss"),
    "FLATTEN": (8, "Flatten"),
    "HDF5_DATA": (9, "HDF5Data"),
    "HDF5_OUTPUT": (10, "HDF5Output"),
    "IM2COL": (11, "Im2col"),
    "IMAGE_DATA": (12, "ImageData"),
    "INFOGAIN_LOSS": (13, "InfogainLoss"),
    "INNER_PRODUCT": (14, "InnerProduct"),
    "LRN": (15, "LRN"),
    "MULTINOMIAL_LOGISTIC_LOSS": (16, "MultinomialLogisticLoss"),
    "POOLING": (17, "Pooling"),
    "RELU": (18, "ReLU"),
    "SIGMOID": (19, "Sigmoid"),
    "SOFTMAX": (20, "Softmax"),
    "SOFTMAX_LOSS": (21, "SoftmaxWithLoss"),
    "SPLIT": (22, "Split"),
    "TANH": (23, "TanH"),
    "WINDOW_DATA": (24, "WindowData"),
    "ELTWISE": (25, "Eltwise"),
    "POWER": (26, "Power"),
    "SIGMOID_CROSS_ENTROPY_LOSS": (27, "SigmoidCrossEntropyLoss"),
    "HINGE_LOSS": (28, "HingeLoss"),
    "MEMORY_DATA": (29, "MemoryData"),
    "ARGMAX": (30, "ArgMax"),
    "THRESHOLD": (31, "Threshold"),
    "DUMMY_DATA": (32, "DummyData"),
    "SLICE": (33, "Slice"),
    "MVN": (34, "MVN"),
    "ABSVAL": (35, "AbsVal"),
    "SILENCE": (36, "Silence"),
    "CONTRASTIVE_LOSS": (37, "ContrastiveLoss"),
    "EXP": (38, "Exp"),
    "DECONVOLUTION": (39, "Deconvolution"),
}
"""Layer types of Caffe's second format (``layers { type: CONVOLUTION }``): number, and today's name."""

_SCALARS = ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32")


def message_class(name: str) -> Any:
    """Give the protobuf class of a message, for instance ``NetParameter``."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


def known_fields(message: str) -> dict[str, str]:
    """Give the names of a message's fields, each with its type's name."""
    return {name: kind for name, _, kind, _, _ in _table()[message]}


@functools.cache
def _table() -> dict[str, list[tuple[str, int, str, str, str]]]:
    """Read `_MESSAGES`: (name, number, type, how often, default) of each field, by message."""
    table: dict[str, list[tuple[str, int, str, str, str]]] = {}
    for line in _MESSAGES.strip().splitlines():
        if not line.startswith(" "):
            message, _, line = line.partition(":")
            table[message] = []
        for field in line.split(";"):
            name, number, kind, *rest = field.split()
            mark = kind[-1] if kind[-1] in "*+" else ""
            table[message].append((name, int(number), kind.rstrip("*+"), mark, "".join(rest)[1:]))
    return table


@functools.cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="qnb/caffe.proto", package=_PACKAGE, syntax="proto2")
    enums = _ENUMS | {"LayerType": {name: number for name, (number, _) in V1_TYPES.items()}}
    for number, (name, values) in enumerate(enums.items()):
        # values of different enums may not have the same name in one scope
        scope = file.message_type.add(name=f"Enum{number}") if name != "Phase" else file
        enum = scope.enum_type.add(name=name)
        for value, code in values.items():
            enum.value.add(name=value, number=code)
    paths = {name: f".{_PACKAGE}.Enum{number}.{name}" for number, name in enumerate(enums)}
    paths["Phase"] = f".{_PACKAGE}.Phase"
    field_proto = descriptor_pb2.FieldDescriptorProto
    for message, fields in _table().items():
        made = file.message_type.add(name=message)
        for name, number, kind, mark, default in fields:
            field = made.field.add(name=name, number=number)
            field.label = field_proto.LABEL_REPEATED if mark else field_proto.LABEL_OPTIONAL
            field.options.packed = mark == "+"
            if kind in _SCALARS:
                field.type = getattr(field_proto, f"TYPE_{kind.upper()}")
            else:
                field.type = field_proto.TYPE_ENUM if kind in paths else field_proto.TYPE_MESSAGE
                field.type_name = paths.get(kind, f".{_PACKAGE}.{kind}")
            if default:
                field.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool
