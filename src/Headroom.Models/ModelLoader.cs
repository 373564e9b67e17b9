using System.Buffers;
using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Models;

/// <summary>
/// Streams weights from a source into a model: one tensor at a time, quantized on the device, so the peak is the final
/// size plus one tensor.
/// </summary>
internal static class ModelLoader
{
    private const int ChunkElements = 1 << 20; // 4 MB of float32 between file and device

    /// <summary>
    /// The staging buffer of the "load" phase: room for the largest tensor that is quantized, in F32; a 16-bit file's
    /// fills half of it.
    /// </summary>
    public static Tensor Staging(LlamaModel model, IMemory memory)
    {
        memory.BeginPhase("load");
        long largest = model.Projections.Max(p => (long)p.Weight.Out * p.Weight.In);
        // Row-wise storages go through it in pieces of whole rows; only NF4 statistics need the whole tensor.
        if (!model.Projections.Any(p => p.Weight.Storage is WeightStorage.NF4 or WeightStorage.NF4Double))
            largest = Math.Min(largest, Math.Max(ChunkElements, model.Projections.Max(p => p.Weight.In)));
        return memory.Hold(MemoryCategory.Scratch, "load staging", DType.F32, new Shape(checked((int)largest)));
    }

    /// <summary>
    /// Loads every weight. Throws <see cref="HeadroomException"/> for a missing or non-finite tensor, and for one
    /// that belongs to nothing in the model.
    /// </summary>
    public static void Load(
        LlamaModel model, IWeightSource source, IDevice device, IMemory memory, Action<long, long>? progress = null)
    {
        WeightNames.CheckClaimed(source);
        using var quiet = LowPriority.Hold(Environment.ProcessorCount); // the base's hash
        var staging = Staging(model, memory);
        var config = model.Config;
        var jobs = new List<(string Name, LinearWeight Weight)> { (config.TableName(), model.EmbeddingTable) };
        jobs.AddRange(model.Projections.Select(p => (p.Path + ".weight", p.Weight)));
        // A tied head that is trained apart from its table begins as a copy of it.
        if (model.HasOwnHead) jobs.Add((config.TieWordEmbeddings ? config.TableName() : config.HeadName(), model.Head));
        long total = jobs.Sum(j => (long)j.Weight.Out * j.Weight.In), done = 0;
        float[] host = ArrayPool<float>.Shared.Rent(ChunkElements);
        try
        {
            foreach (var (name, weight) in jobs)
            {
                LoadWeight(name, weight, source, device, staging, ref host);
                done += (long)weight.Out * weight.In;
                progress?.Invoke(done, total);
            }
            foreach (var (name, weight) in model.Norms) LoadVector(name, weight, source, device);
            foreach (var p in model.Projections)
                if (!p.Weight.Bias.IsNone) LoadVector(p.Path + ".bias", p.Weight.Bias, source, device);
        }
        finally
        {
            ArrayPool<float>.Shared.Return(host);
        }
        UploadFrequencies(model, device);
        WeightsChanged(device);
    }

    /// <summary>
    /// Random weights (normal, deviation 0.02, one block repeated; norms 1, biases 0), made without a checkpoint; for
    /// benchmarks and tests.
    /// </summary>
    public static void FillRandom(LlamaModel model, IDevice device, IMemory memory, ulong seed)
    {
        var staging = Staging(model, memory);
        var random = new PhiloxRandom(seed);
        var block = new float[Math.Min(staging.Count, ChunkElements)];
        for (int i = 0; i < block.Length; i++) block[i] = random.NextNormal() * 0.02f;
        for (int at = 0; at < staging.Count; at += block.Length)
        {
            int n = (int)Math.Min(block.Length, staging.Count - at);
            Upload(device, block.AsSpan(0, n), staging.Slice(at, n));
        }
        foreach (var w in model.Projections.Select(p => p.Weight).Append(model.EmbeddingTable).Append(model.Head))
            for (int first = 0, step = (int)Math.Min(w.Out, staging.Count / w.In); first < w.Out; first += step)
            {
                int rows = Math.Min(step, w.Out - first);
                device.Ops.Quantize(staging with { Shape = new Shape(rows, w.In) }, RowsOf(w, first, rows));
            }
        foreach (var (_, weight) in model.Norms)
            Upload(device, Enumerable.Repeat(1f, (int)weight.Count).ToArray(), weight);
        foreach (var p in model.Projections)
            if (!p.Weight.Bias.IsNone) device.Ops.Zero(p.Weight.Bias);
        UploadFrequencies(model, device);
        WeightsChanged(device);
    }

    /// <summary>Fills the RoPE frequencies from the configuration.</summary>
    public static void UploadFrequencies(LlamaModel model, IDevice device) =>
        Upload(device, model.Config.InverseFrequencies(out _), model.InverseFrequencies);

    /// <summary>Host floats to a device tensor.</summary>
    public static void Upload(IDevice device, ReadOnlySpan<float> values, Tensor destination) =>
        device.Upload(MemoryMarshal.AsBytes(values), destination);

    private static void LoadWeight(
        string name, in LinearWeight weight, IWeightSource source, IDevice device, Tensor staging, ref float[] host)
    {
        if (weight.Storage == WeightStorage.Gguf)
        {
            LoadBlocks(name, weight, source, device, staging);
            return;
        }
        if (source.QuantizedAs(name) == weight.Storage)
        {
            // Codes and statistics as the file has them: what a peer quantized is not quantized again.
            var parts = source.ReadQuantized(name);
            device.Upload(parts.Codes, weight.Data);
            device.Upload(parts.Absmax, weight.Absmax);
            if (weight.Storage != WeightStorage.NF4Double) return;
            Upload(device, parts.NestedAbsmax, weight.NestedAbsmax);
            Upload(device, [parts.Offset], weight.Offset);
            return;
        }
        var raw = source.RawType(name);
        void Read(int firstRow, int rows, Span<byte> to) => source.ReadRaw(name, firstRow, rows, to);
        if (
            (weight.Storage is WeightStorage.F32 or WeightStorage.BF16 or WeightStorage.F16)
            && raw == weight.Data.DType
        )
        {
            device.Upload(Read, weight.Data);
            if (!device.Ops.AllFinite(weight.Data)) throw NonFinite(name);
            return;
        }
        var type = raw ?? DType.F32;
        int rowsPerPart = PartRows(weight, staging.Bytes / type.Bytes(1));
        for (int first = 0; first < weight.Out; first += rowsPerPart)
        {
            int rows = Math.Min(rowsPerPart, weight.Out - first), start = first;
            var part = new Tensor(staging.Address, type, new Shape(rows, weight.In));
            if (raw != null) device.Upload((r, n, to) => Read(start + r, n, to), part);
            else UploadValues(name, first, source, device, part, ref host);
            if (!device.Ops.AllFinite(part)) throw NonFinite(name);
            device.Ops.Quantize(part, RowsOf(weight, first, rows));
        }
    }

    private static void UploadValues(
        string name, int first, IWeightSource source, IDevice device, Tensor part, ref float[] host)
    {
        int columns = part.Columns, rowsPerChunk = Math.Max(1, ChunkElements / columns);
        if (host.Length < columns) host = new float[columns];
        for (int r = 0; r < part.Rows; r += rowsPerChunk)
        {
            int n = Math.Min(rowsPerChunk, part.Rows - r);
            var span = host.AsSpan(0, n * columns);
            source.ReadRows(name, first + r, n, span);
            Upload(device, span, part.Slice(r, n));
        }
    }

    // The file's own bytes; their values are looked at once, because a damaged scale would poison every product.
    private static void LoadBlocks(
        string name, in LinearWeight weight, IWeightSource source, IDevice device, Tensor staging)
    {
        int rowsPerPart = (int)Math.Clamp(staging.Count / weight.In, 1, weight.Out);
        byte[] host = ArrayPool<byte>.Shared.Rent(checked(rowsPerPart * weight.Data.Columns));
        try
        {
            for (int first = 0; first < weight.Out; first += rowsPerPart)
            {
                int rows = Math.Min(rowsPerPart, weight.Out - first);
                var span = host.AsSpan(0, rows * weight.Data.Columns);
                source.ReadBlocks(name, first, rows, span);
                var part = RowsOf(weight, first, rows);
                device.Upload(span, part.Data);
                var values = staging with { Shape = new Shape(rows, weight.In) };
                device.Ops.Dequantize(part, values);
                if (!device.Ops.AllFinite(values)) throw NonFinite(name);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(host);
        }
    }

    /// <summary>Stores float32 values [out, in] in a weight, through the staging buffer.</summary>
    public static void Store(in LinearWeight weight, ReadOnlySpan<float> values, IDevice device, Tensor staging)
    {
        int step = PartRows(weight, staging.Count);
        for (int first = 0; first < weight.Out; first += step)
        {
            int rows = Math.Min(step, weight.Out - first);
            var part = staging with { Shape = new Shape(rows, weight.In) };
            Upload(device, values.Slice(first * weight.In, rows * weight.In), part);
            device.Ops.Quantize(part, RowsOf(weight, first, rows));
        }
        WeightsChanged(device);
    }

    /// <summary>The values [out, in] that a weight stands for, through the staging buffer.</summary>
    public static void Read(in LinearWeight weight, Span<float> values, IDevice device, Tensor staging)
    {
        int step = PartRows(weight, staging.Count);
        for (int first = 0; first < weight.Out; first += step)
        {
            int rows = Math.Min(step, weight.Out - first);
            var part = staging with { Shape = new Shape(rows, weight.In) };
            device.Ops.Dequantize(RowsOf(weight, first, rows), part);
            device.Download(part, MemoryMarshal.AsBytes(values.Slice(first * weight.In, rows * weight.In)));
        }
    }

    private static void WeightsChanged(IDevice device) => (device as IKeepsExpandedWeights)?.WeightsChanged();

    // Storages other than NF4 are row-wise, so a table larger than the staging buffer goes through it in pieces.
    private static int PartRows(in LinearWeight weight, long room) =>
        weight.Storage is WeightStorage.NF4 or WeightStorage.NF4Double
            ? weight.Out
            : (int)Math.Clamp(room / weight.In, 1, weight.Out);

    private static LinearWeight RowsOf(in LinearWeight w, int first, int rows) => w.Out == rows ? w : w with
    {
        Out = rows,
        Data = w.Data.Slice(first, rows),
        Absmax = w.Absmax.IsNone ? default : w.Absmax.Slice(first, rows),
    };

    private static void LoadVector(string name, Tensor destination, IWeightSource source, IDevice device)
    {
        var values = new float[destination.Count];
        source.ReadRows(name, 0, values.Length, values);
        if (values.Any(v => !float.IsFinite(v))) throw NonFinite(name);
        Upload(device, values, destination);
    }

    private static HeadroomException NonFinite(string name) =>
        new(
            $"The base weight {name} holds NaN or infinite values.",
            "The checkpoint is damaged; download it again or choose another base model.");
}
