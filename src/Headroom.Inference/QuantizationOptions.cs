using Headroom.Core;

namespace Headroom.Inference;

/// <summary>Quantization of the frozen base (transformers <c>BitsAndBytesConfig</c>).</summary>
public sealed class QuantizationOptions
{
    /// <summary>Projections in NF4.</summary>
    [Identity(Identity.Resolved)]
    [AlsoCalled("adapter quantization_bit finetuning_type load_4bit")]
    public bool LoadIn4bit { get; set; } = true;
    /// <summary>Projections in INT8.</summary>
    [Identity(Identity.Resolved)]
    [AlsoCalled("load_8bit int8")]
    public bool LoadIn8bit { get; set; }
    /// <summary>Type of the 4-bit values: nf4.</summary>
    [Identity(Identity.Numbers)]
    [AlsoCalled("quant_type quantization_type")]
    public string Bnb4bitQuantType { get; set; } = "nf4";
    /// <summary>Nested statistics; null = as a 4-bit checkpoint has them, else true.</summary>
    [Identity(Identity.Resolved)]
    [AlsoCalled("double_quantization use_double_quant use_nested_quant")]
    public bool? Bnb4bitUseDoubleQuant { get; set; }
    /// <summary>
    /// Keep a quantized copy of the base for the next start; null = of bases of 1 GiB and more. It changes no result.
    /// </summary>
    [Identity(Identity.None)]
    public bool? Cache { get; set; }
}
