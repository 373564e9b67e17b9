using Headroom.Core;
using Headroom.Models;

namespace Headroom.Inference.Bases;

/// <summary>How a base is held on a device: the one place where precision and storage are chosen.</summary>
internal static class BaseSettings
{
    /// <summary>Settings of a base of which nothing is trained.</summary>
    /// <param name="source">The base.</param>
    /// <param name="device">Where it is held.</param>
    /// <param name="quantization">Storage of the projections; null = as the file has them.</param>
    /// <param name="precision">Type of the activations.</param>
    /// <exception cref="HeadroomException">The device does not compute in the precision, or the base is quantized
    /// already and not as is asked.</exception>
    public static ModelSettings Choose(
        IWeightSource source, IDevice device, QuantizationOptions? quantization, Precision precision = Precision.Auto)
    {
        var compute = ComputeType(precision, device, "training.precision");
        // A GGUF base keeps the file's own types: nothing is rounded a second time, and nothing takes more memory than
        // the file.
        var types = BlockTypes(source);
        bool gguf = types != null;
        var own = gguf
            ? WeightStorage.Gguf
            : source.SourceDType(source.Config.AnyProjectionName()) switch
            {
                DType.BF16 => WeightStorage.BF16,
                DType.F16 => WeightStorage.F16,
                _ => WeightStorage.F32,
            };
        var stored = Stored(source, quantization);
        var linear = stored.Linear
            ?? (quantization switch
            {
                { LoadIn4bit: true } => quantization.Bnb4bitUseDoubleQuant ?? true
                    ? WeightStorage.NF4Double
                    : WeightStorage.NF4,
                { LoadIn8bit: true } => WeightStorage.Int8,
                _ => own,
            });
        // 16 bits hold a Q8_0 or 16-bit table to within its own rounding; a float32 table keeps its type.
        var embedding = gguf
            ? WeightStorage.Gguf
            : source.SourceDType(source.Config.TableName()) switch
            {
                DType.F16 => WeightStorage.F16,
                DType.BF16 => WeightStorage.BF16,
                _ => WeightStorage.F32,
            };
        return new ModelSettings(linear, embedding, TrainMode.None)
        {
            BlockTypes = types,
            Storages = stored.Others,
            ComputeType = compute,
        };
    }

    /// <summary>
    /// The type of activations that a precision means on a device; <paramref name="key"/> is what set it.
    /// </summary>
    /// <exception cref="HeadroomException">The device does not compute in it.</exception>
    public static DType ComputeType(Precision precision, IDevice device, string key)
    {
        var preferred = device.PreferredCompute;
        return precision switch
        {
            Precision.Auto => preferred,
            Precision.Fp32 => DType.F32,
            Precision.Bf16 or Precision.Fp16 when preferred == DType.F32 => throw new HeadroomException(
                $"{key} is {precision.Word()}, but the CPU computes in fp32.", $"Set {key} to auto or fp32, or use a GPU."),
            Precision.Bf16 when preferred == DType.F16 => throw new HeadroomException(
                $"{key} is bf16, but {device.Name} does not compute in it.", $"Set {key} to auto or fp16."),
            Precision.Bf16 => DType.BF16,
            _ => DType.F16,
        };
    }

    /// <summary>Types of the matrices of a GGUF file; null for other checkpoints.</summary>
    public static IReadOnlyDictionary<string, GgmlType>? BlockTypes(IWeightSource source) =>
        source.BlockType(source.Config.TableName()) == null
            ? null
        : source.Config.MatrixNames().ToDictionary(n => n, n => source.BlockType(n)!.Value);

    /// <summary>
    /// The storage of a checkpoint that is quantized already, and the projections that it holds in another one (skipped
    /// modules, in their own type); (null, null) for others. Options that ask for something else are refused: nothing
    /// is quantized twice.
    /// </summary>
    private static (WeightStorage? Linear, IReadOnlyDictionary<string, WeightStorage>? Others) Stored(
        IWeightSource source, QuantizationOptions? q)
    {
        string[] names = [.. source.Config.ProjectionPaths().Select(p => p + ".weight")];
        var kinds = names.Select(source.QuantizedAs).ToArray();
        if (kinds.FirstOrDefault(k => k != null) is not { } linear) return (null, null);
        string has =
            linear == WeightStorage.NF4Double
                ? "4-bit NF4 with double-quantized statistics"
                : "4-bit NF4 with flat statistics";
        if (q is { LoadIn4bit: false })
            throw new HeadroomException(
                $"The checkpoint is quantized already ({has}), but quantization.load_in_4bit is false.",
                "Set load_in_4bit to true, or give the 16-bit checkpoint.");
        if (q?.Bnb4bitUseDoubleQuant is { } asked && asked != (linear == WeightStorage.NF4Double))
            throw new HeadroomException(
                $"The checkpoint is quantized already ({has}), but quantization.bnb_4bit_use_double_quant is "
                    + $"{(asked ? "true" : "false")}.",
                "Remove that key, or give the 16-bit checkpoint.");
        var others = names
            .Zip(kinds)
            .Where(n => n.Second != linear)
            .ToDictionary(
                n => n.First,
                n =>
                    n.Second
                    ?? source.SourceDType(n.First) switch
                    {
                        DType.BF16 => WeightStorage.BF16,
                        DType.F16 => WeightStorage.F16,
                        _ => WeightStorage.F32,
                    }
            );
        return (linear, others.Count > 0 ? others : null);
    }
}
