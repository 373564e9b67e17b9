using System.Text.Json.Serialization;

namespace Headroom.Core;

/// <summary>Type of the activations.</summary>
[JsonConverter(typeof(SnakeCaseEnum<Precision>))]
public enum Precision : byte
{
    /// <summary>What the device prefers.</summary>
    Auto,
    /// <summary>32-bit floats.</summary>
    Fp32,
    /// <summary>bfloat16.</summary>
    Bf16,
    /// <summary>16-bit floats, with loss scaling.</summary>
    Fp16,
}
