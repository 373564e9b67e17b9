using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Formats.Peft;
using Headroom.Models;

namespace Headroom.Inference;

/// <summary>Copies of weights and trained tensors between host and device.</summary>
internal sealed partial class Engine
{
    /// <summary>The values [out, in] that the device holds for a projection's base weight.</summary>
    public void ReadBase(Projection p, Span<float> values) =>
        ModelLoader.Read(p.Weight, values, _device, ModelLoader.Staging(Model, _memory));

    /// <summary>Stores a projection's base weight [out, in] anew.</summary>
    public void WriteBase(Projection p, ReadOnlySpan<float> values)
    {
        ModelLoader.Store(p.Weight, values, _device, ModelLoader.Staging(Model, _memory));
        _adaptersChanged = true; // DoRA's norms are of the base too
    }

    /// <summary>
    /// Bytes of a float32 tensor that are copied at a time, at least a row: a span of bytes holds less than 2 GiB, a
    /// trained head may not.
    /// </summary>
    internal long SliceBytes { get; set; } = 64L << 20;

    /// <summary>Reads a float32 tensor.</summary>
    public float[] Read(Tensor tensor)
    {
        var values = new float[tensor.Count];
        var rest = values.AsSpan();
        foreach (var part in Slices(tensor))
        {
            _device.Download(part, MemoryMarshal.AsBytes(rest[..(int)part.Count]));
            rest = rest[(int)part.Count..];
        }
        return values;
    }

    /// <summary>
    /// Reads a float32 tensor and gives its bytes to <paramref name="take"/>, in order and slice by slice: nothing of
    /// its size is made. A slice is valid within the call.
    /// </summary>
    public void Read(Tensor tensor, Action<ReadOnlySpan<byte>> take)
    {
        byte[] slice = [];
        foreach (var part in Slices(tensor))
        {
            if (slice.Length < part.Bytes) slice = new byte[part.Bytes]; // the first is the largest
            var bytes = slice.AsSpan(0, (int)part.Bytes);
            _device.Download(part, bytes);
            take(bytes);
        }
    }

    /// <summary>Writes a float32 tensor.</summary>
    public void Write(Tensor tensor, ReadOnlySpan<float> values)
    {
        if (values.Length != tensor.Count)
            throw new InvalidOperationException($"{values.Length} values for {tensor.Shape}");
        foreach (var part in Slices(tensor))
        {
            ModelLoader.Upload(_device, values[..(int)part.Count], part);
            values = values[(int)part.Count..];
        }
        AdaptersChanged();
    }

    private IEnumerable<Tensor> Slices(Tensor tensor)
    {
        int rows = (int)
            Math.Clamp(SliceBytes / Math.Max(1, tensor.DType.Bytes(tensor.Columns)), 1, Math.Max(1, tensor.Rows));
        for (int first = 0; first < tensor.Rows; first += Math.Min(rows, tensor.Rows - first))
            yield return tensor.Slice(first, Math.Min(rows, tensor.Rows - first));
    }

    /// <summary>The adapter in PEFT form.</summary>
    public PeftAdapter Adapter(string? baseModel, string baseHash)
    {
        var lora = Settings.Lora ?? throw new InvalidOperationException("no adapter");
        var tensors = Model.AdapterTensors.ToDictionary(
            t => t.Name, t => (Dimensions(t.Weight), Read(t.Weight)));
        return new PeftAdapter
        {
            Lora = lora,
            Initial = Initial,
            BaseModel = baseModel,
            BaseHash = baseHash,
            Tensors = tensors,
        };
    }

    /// <summary>Copies an adapter's tensors to the device.</summary>
    /// <exception cref="HeadroomException">A tensor is missing, of another shape, or one too many.</exception>
    public void LoadAdapter(PeftAdapter adapter)
    {
        adapter = adapter.Over(Model.Config);
        int matched = 0;
        foreach (var (name, tensor) in Model.AdapterTensors)
        {
            if (!adapter.Tensors.TryGetValue(name, out var t))
                throw new HeadroomException(
                    $"The adapter has no {name}.", "It belongs to another model or other target_modules.");
            if (!t.Shape.SequenceEqual(Dimensions(tensor)))
                throw new HeadroomException(
                    $"The adapter's {name} is [{string.Join(", ", t.Shape)}], not {tensor.Shape}.",
                    "It belongs to another model or rank.");
            Write(tensor, t.Values);
            matched++;
        }
        if (matched != adapter.Tensors.Count)
            throw new HeadroomException(
                $"{adapter.Tensors.Count - matched} tensors of the adapter match nothing in the model.",
                "It belongs to another model.");
    }

    internal static long[] Dimensions(Tensor t) => t.Shape.Rank == 1 ? [t.Rows] : [t.Rows, t.Columns];
}
