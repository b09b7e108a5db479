"""A transformer's linear layers, replaced by faster ones: weights laid out once, steps fused, half precision.

On a CPU, PyTorch lays a weight out again for each product, and reads and writes the result once more for the activation
and for the residual sum. oneDNN's fused operators, those that `torch.compile` uses on CPUs, do neither, and need no
compiler.

In half precision only the linear layers and what lies between them and the attention are in half: the residual stream
and the norms stay in float32, without which bfloat16 loses ten times as much.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from driftline.components.embedding.encoding.forward.packed import NotPackedError, attend_by_length

_OUTPUT_CHILDREN: Final = {"dense", "LayerNorm", "dropout"}

# oneDNN translates its products for each number of rows anew, which takes milliseconds, and keeps a thousand
# translations, which take a gigabyte.
_ROUND_TOKENS: Final = 32


class _HalfLinear(nn.Module):
    """A linear layer with its weights and results in half precision, on any device."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = linear.weight.detach().to(dtype)
        self.bias = _bias(linear, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)


class _PrepackedLinear(nn.Module):
    """A linear layer on oneDNN's fused product, and GELU with it if asked for."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, *, gelu: bool = False) -> None:
        super().__init__()
        self.dtype = dtype
        weight = linear.weight.detach().to(dtype).contiguous()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self.bias = _bias(linear, dtype)
        self._attributes: tuple[Any, ...] = ("gelu", [], "none") if gelu else ("none", [], "")

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.weight, self.bias, *self._attributes)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Return x·Wᵀ + b + other, in the precision of `other`."""
        if other.dtype != self.dtype:
            return other + self(x)
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, self.bias, "add")


class _DenseSumNorm(nn.Module):
    """The output half of a BERT-like layer: the norm of a linear layer's result and what went around it."""

    def __init__(self, dense: _PrepackedLinear, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.dense = dense
        self.norm = norm

    def forward(self, hidden_states: Tensor, input_tensor: Tensor) -> Tensor:
        return self.norm(self.dense.plus(hidden_states, input_tensor))


class _PackedLayer(nn.Module):
    """A whole layer of BERT's kind on packed sequences, in as few steps as it has products.

    Between these, Python's own work on a layer of many modules is what other threads wait for.
    """

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        super().__init__()
        attention = layer.attention.self
        self._heads: int = attention.num_attention_heads
        self._scaling: float = attention.attention_head_size**-0.5
        self.inputs = _PrepackedLinear(_joined(attention.query, attention.key, attention.value), dtype)
        self.attended = _PrepackedLinear(layer.attention.output.dense, dtype)
        self.attention_norm = layer.attention.output.LayerNorm
        self.up = _PrepackedLinear(layer.intermediate.dense, dtype, gelu=True)
        self.down = _PrepackedLinear(layer.output.dense, dtype)
        self.norm = layer.output.LayerNorm

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: Any, **others: Any) -> Tensor:
        ends: Tensor | None = others.get("cu_seq_lens_q")
        if ends is None or attention_mask is not None:
            raise NotPackedError("a layer for packed sequences was given others")
        x = hidden_states[0]
        queries, keys, values = self.inputs(x).unflatten(1, (3, self._heads, -1)).unbind(1)
        attended = attend_by_length(queries, keys, values, ends.tolist(), self._scaling).flatten(1)
        x = self.attention_norm(self.attended.plus(attended, x))
        return self.norm(self.down.plus(self.up(x), x))[None]


class LinearLayers:
    """Replaces a model's linear layers, and can put them back.

    Args:
        model: a transformer in float32, in evaluation mode.
        dtype: of the linear layers.
        fuse: whether to use fused products, see :func:`can_fuse`.
        packed: whether the model will be given packed sequences alone.

    Attributes:
        round_tokens: what the tokens of packed sequences should be a multiple of.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, *, fuse: bool, packed: bool) -> None:
        self._replaced: list[tuple[nn.Module, str, nn.Module]] = []
        if fuse and packed:
            for parent in list(model.modules()):
                for name, child in list(parent.named_children()):
                    if _is_bert_layer(child):
                        self._replace(parent, name, _PackedLayer(child, dtype))
        if fuse:
            for parent in list(model.modules()):
                self._fuse(parent, dtype)
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    new = _PrepackedLinear(child, dtype) if fuse else _HalfLinear(child, dtype)
                    self._replace(parent, name, new)
        self.round_tokens = _ROUND_TOKENS if fuse else 1

    def revert(self) -> None:
        """Put the model's own layers back."""
        for parent, name, child in reversed(self._replaced):
            setattr(parent, name, child)
        self._replaced.clear()

    def finalise(self) -> None:
        """Forget the model's own layers, whose memory is then free."""
        self._replaced.clear()

    def _replace(self, parent: nn.Module, name: str, new: nn.Module) -> None:
        self._replaced.append((parent, name, getattr(parent, name)))
        setattr(parent, name, new)

    def _fuse(self, parent: nn.Module, dtype: torch.dtype) -> None:
        """Fuse what a layer of BERT's kind does around its linear layers, recognised by the names of its children."""
        dense = getattr(parent, "dense", None)
        if type(dense) is nn.Linear and _is_gelu(getattr(parent, "intermediate_act_fn", None)):
            self._replace(parent, "dense", _PrepackedLinear(dense, dtype, gelu=True))
            self._replace(parent, "intermediate_act_fn", nn.Identity())
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("Output") and {n for n, _ in child.named_children()} == _OUTPUT_CHILDREN:
                inner: Any = child
                if type(inner.dense) is nn.Linear and isinstance(inner.LayerNorm, nn.LayerNorm):
                    self._replace(parent, name, _DenseSumNorm(_PrepackedLinear(inner.dense, dtype), inner.LayerNorm))


def _bias(linear: nn.Linear, dtype: torch.dtype) -> Tensor | None:
    bias = cast("Tensor | None", linear.bias)
    return None if bias is None else bias.detach().to(dtype)


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Say whether this PyTorch, on this device, has oneDNN's fused products for a number type."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _joined(*layers: nn.Linear) -> nn.Linear:
    """Return one linear layer that gives the results of several, side by side."""
    joined = nn.Linear(layers[0].in_features, sum(layer.out_features for layer in layers), bias=True)
    with torch.no_grad():
        joined.weight.copy_(torch.cat([layer.weight for layer in layers]))
        joined.bias.copy_(torch.cat([layer.bias for layer in layers]))
    return joined


def _is_bert_layer(module: Any) -> bool:
    """Say whether a module has the parts that a layer of BERT's kind is made of; no further ones, by its children."""
    try:
        own, out = module.attention.self, module.attention.output
        linear = (own.query, own.key, own.value, out.dense, module.intermediate.dense, module.output.dense)
        norms = (out.LayerNorm, module.output.LayerNorm)
        activation, heads = module.intermediate.intermediate_act_fn, own.num_attention_heads
    except AttributeError:
        return False
    return (
        {name for name, _ in module.named_children()} == {"attention", "intermediate", "output"}
        and all(type(layer) is nn.Linear and _bias(layer, torch.float32) is not None for layer in linear)
        and all(isinstance(norm, nn.LayerNorm) for norm in norms)
        and _is_gelu(activation)
        and not getattr(own, "is_causal", False)
        and isinstance(heads, int)
    )


def _is_gelu(activation: object) -> bool:
    """Say whether an activation is the GELU by the error function."""
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return getattr(activation, "act", None) is nn.functional.gelu
