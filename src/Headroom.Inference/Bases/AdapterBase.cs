using Headroom.Core;
using Headroom.Formats.Peft;
using Headroom.Inference.Export;

namespace Headroom.Inference.Bases;

/// <summary>The base that an adapter sits on: the checkpoint's own, or what its initialization left of it.</summary>
internal static class AdapterBase
{
    /// <summary>The base as the adapter needs it. The source stays the caller's.</summary>
    /// <exception cref="HeadroomException">The base is quantized already, so its weights are not known; or the adapter
    /// holds tables of another size.</exception>
    public static IWeightSource Subtract(IWeightSource source, PeftAdapter? adapter)
    {
        _ = adapter?.Over(source.Config); // refuses tables of another size before anything is loaded
        if (adapter?.Initial is not { } initial) return source;
        Original(source, $"the adapter's init_lora_weights ({adapter.Lora.InitLoraWeights})");
        return new ResidualSource(source, initial);
    }

    internal static void Original(IWeightSource source, string what)
    {
        string name = source.Config.AnyProjectionName();
        if (source.BlockType(name) != null || source.QuantizedAs(name) != null)
            throw new HeadroomException(
                $"{char.ToUpperInvariant(what[0])}{what[1..]} takes the base's own weights, but this base is "
                    + $"quantized already.",
                "Give the checkpoint in 16 or 32 bits.");
    }
}

/// <summary>
/// A base less the adapter's start: W - scaling * B A of each pair in float32, before whoever holds it rounds or
/// quantizes (PEFT <c>lora/layer.py</c>, pissa_init).
/// </summary>
internal sealed class ResidualSource : IWeightSource
{
    private readonly IWeightSource _base;
    private readonly PeftAdapter _initial;
    private readonly LoraConfig _lora;

    public ResidualSource(IWeightSource source, PeftAdapter initial)
    {
        (_base, _initial, _lora) = (source, initial, initial.Lora);
        foreach (var (key, t) in initial.Tensors)
        {
            string name = key[..key.LastIndexOf(".lora_", StringComparison.Ordinal)] + ".weight";
            if (
                !source.Has(name)
                || source.ShapeOf(name) is var (rows, cols)
                    && (key.Contains(".lora_A.", StringComparison.Ordinal) ? t.Shape[1] != cols : t.Shape[0] != rows)
            )
                throw new HeadroomException(
                    $"The adapter's initial {key} does not fit the base.", "It belongs to another model.");
        }
    }

    public ModelConfig Config => _base.Config;
    public string Hash => _base.Hash;
    public string? ConfigJson => _base.ConfigJson;
    public IReadOnlyList<string> Unclaimed => _base.Unclaimed;
    public IReadOnlyList<string> Notices => _base.Notices;
    public void BeginHash() => _base.BeginHash();
    public bool Has(string hfName) => _base.Has(hfName);
    public (int Rows, int Cols) ShapeOf(string hfName) => _base.ShapeOf(hfName);
    public DType SourceDType(string hfName) => _base.SourceDType(hfName);

    public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
    {
        _base.ReadRows(hfName, firstRow, rowCount, destination);
        if (!hfName.EndsWith(".weight", StringComparison.Ordinal)) return;
        string module = hfName[..^".weight".Length];
        if (
            _initial.Tensors.TryGetValue(module + ".lora_A.weight", out var a)
            && _initial.Tensors.TryGetValue(module + ".lora_B.weight", out var b)
        )
            MergedSource.AddDelta(
                a.Values, b.Values, (int)a.Shape[0], -_lora.For(module).Scaling, firstRow, rowCount, (int)a.Shape[1],
                destination);
    }

    /// <summary>Does nothing: the base belongs to the caller.</summary>
    public void Dispose() { }
}
