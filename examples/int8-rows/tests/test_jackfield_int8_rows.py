"""The laws of a quantization method, in a layer and in a whole model."""

from jackfield_int8_rows.plugin import Int8Rows

from jackfield.testing import QuantizationContract


class TestInt8Rows(QuantizationContract):
    method = Int8Rows
    error = 0.02


def test_layers_can_be_left_alone():
    method = Int8Rows({}, options=Int8Rows.Options(skip=("lm_head", "model.layers.0.")))
    assert method.linear_method("lm_head") is None
    assert method.linear_method("model.layers.0.mlp.gate_up_proj") is None
    assert method.linear_method("model.layers.1.mlp.gate_up_proj") is not None
