using System.Diagnostics;
using System.Globalization;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Gguf;
using Headroom.Formats.HuggingFace;
using Headroom.Inference;
using Headroom.Inference.Bases;

namespace Headroom.Training.Measure;

/// <summary>One thing that was timed.</summary>
/// <param name="What">What was done.</param>
/// <param name="Bytes">Bytes of files that it read or wrote.</param>
/// <param name="Seconds">Median of the rounds.</param>
/// <param name="Best">The fastest round.</param>
internal sealed record LoadTime(string What, long Bytes, double Seconds, double Best)
{
    /// <summary>Bytes over the median, GB/s.</summary>
    public double GbPerSecond => Bytes / 1e9 / Seconds;
}

/// <summary>Result of a load benchmark.</summary>
/// <param name="Device">Where the weights went.</param>
/// <param name="Times">In the order they were taken.</param>
/// <param name="HashCost">Time of a load with the hash beside it over one without, minus 1: median of the rounds' own
/// ratios.</param>
/// <param name="WeightBytes">What the model takes of the arena when it is loaded.</param>
/// <param name="StagingBytes">What the plan holds beside it while it loads.</param>
/// <param name="LargestTensorBytes">The largest tensor that is quantized, as float32.</param>
/// <param name="Memory">The device's memory after a load; null on a CPU.</param>
/// <param name="PlannedBytes">Everything the plan says that the process takes of the device.</param>
internal sealed record LoadBenchmarkResult(
    string Device, IReadOnlyList<LoadTime> Times, double HashCost, long WeightBytes, long StagingBytes,
    long LargestTensorBytes, MemoryUse? Memory, long PlannedBytes)
{
    /// <summary>The result as a table.</summary>
    public IEnumerable<string> Lines()
    {
        yield return Device;
        yield return $"{"",-36} {"GB",7} {"median s",9} {"best s",9} {"GB/s",7}";
        foreach (var t in Times)
            yield return string.Create(
                CultureInfo.InvariantCulture,
                $"{t.What,-36} {t.Bytes / 1e9,7:F2} {t.Seconds,9:F3} {t.Best,9:F3} {t.GbPerSecond,7:F2}");
        yield return string.Create(
            CultureInfo.InvariantCulture, $"the hash costs {HashCost * 100:F1} % of a load (median of the rounds)");
        yield return string.Create(CultureInfo.InvariantCulture,
            $"load peak: {WeightBytes / 1048576.0:F0} MiB of weights + {StagingBytes / 1048576.0:F0} MiB of staging; "
                + $"the largest tensor is {LargestTensorBytes / 1048576.0:F0} MiB as float32"
        );
        if (Memory is { Process: >= 0 } m)
            yield return string.Create(
                CultureInfo.InvariantCulture,
                $"planned {PlannedBytes / 1048576.0:F0} MiB, process {m.Process / 1048576.0:F0} MiB");
    }
}

/// <summary>
/// Loading of a 16- or 32-bit safetensors checkpoint from the page cache into NF4 with double quantization: what the
/// page cache gives, what the source gives, whole loads with and without the hash beside them in turns, the quantized
/// copy, and the second start, which reads that.
/// </summary>
internal static class LoadBenchmark
{
    private const int Piece = 4 << 20, MostThreads = 8;

    /// <summary>Runs. <paramref name="open"/> is called for every load; its devices are closed.</summary>
    /// <param name="model">A folder with safetensors.</param>
    /// <param name="open">Opens the device.</param>
    /// <param name="work">Folder for the copy; a folder inside it is made and removed.</param>
    /// <param name="rounds">Times that everything is done, after one load that is not counted.</param>
    /// <param name="say">A line of progress.</param>
    /// <param name="stop">Ends it with an <see cref="OperationCanceledException"/>; looked at between pieces of files
    /// and tensors, though not within a hash.</param>
    // Long: what is timed in a round, in its order; the timers between share the table of times.
    public static LoadBenchmarkResult Run(
        string model, Func<IDevice> open, string work, int rounds, Action<string>? say = null,
        CancellationToken stop = default)
    {
        // what a kill leaves is swept, and nothing else has the name
        string root = Temporary.Beside(Path.Combine(work, "headroom-load"));
        var options = new QuantizationOptions { Cache = true };
        var cache = new QuantizedCache(root, 0);
        try
        {
            stop.ThrowIfCancellationRequested();
            using var files = Plain(model);
            LoadBenchmarkResult shape;
            using (var engine = Load(open(), files, options, stop))
                shape = Shape(engine); // paid once a process or once a machine: compiled code, the page cache
            long bytes = files.Stored.Bytes;
            int threads = Math.Min(MostThreads, Environment.ProcessorCount);
            string several = threads == 1 ? "1 thread" : $"{threads} threads";
            var times = new Dictionary<string, (long Bytes, List<double> Seconds)>();
            double Time(string what, long size, Action action)
            {
                stop.ThrowIfCancellationRequested();
                long start = Stopwatch.GetTimestamp();
                action();
                return Note(what, size, Stopwatch.GetElapsedTime(start).TotalSeconds);
            }
            double Note(string what, long size, double seconds)
            {
                if (!times.TryGetValue(what, out var t)) times[what] = t = (size, []);
                t.Seconds.Add(seconds);
                return seconds;
            }
            var costs = new List<double>();
            for (int round = 0; round < rounds; round++)
            {
                Time("page cache, 1 thread", bytes, () => ReadFiles(files.Files, 1, stop));
                if (threads > 1) Time($"page cache, {several}", bytes, () => ReadFiles(files.Files, threads, stop));
                Time($"tensors as they lie, {several}", bytes, () => ReadTensors(files, threads, stop));
                Time("SHA-256 alone", bytes, () => BaseHashes.Compute(files.Files));
                // The order changes from round to round, so that neither always comes after the other.
                var pair = new double[2];
                foreach (int hashed in round % 2 == 0 ? [0, 1] : (int[])[1, 0])
                {
                    var device = open();
                    long start = Stopwatch.GetTimestamp();
                    var hash = hashed == 1 ? Task.Run(() => BaseHashes.Compute(files.Files)) : null;
                    using var source = Plain(model);
                    using var engine = LoadBeside(hash, device, source, options, stop);
                    pair[hashed] = Note(
                        hashed == 1 ? "load, hash beside it" : "load", bytes,
                        Stopwatch.GetElapsedTime(start).TotalSeconds);
                    if (hash == null) continue;
                    hash.Wait(CancellationToken.None);
                    Note("until the hash is known too", bytes, Stopwatch.GetElapsedTime(start).TotalSeconds);
                }
                costs.Add(pair[1] / pair[0] - 1);
                say?.Invoke($"round {round + 1} of {rounds}: load {pair[0]:F2} s, hash beside it {pair[1]:F2} s");
            }
            Copies(model, open, cache, options, rounds, Note, say, stop);
            return shape with
            {
                HashCost = Median(costs),
                Times =
                [
                    .. times.Select(t => new LoadTime(
                        t.Key, t.Value.Bytes, Median(t.Value.Seconds), t.Value.Seconds.Min())),
                ],
            };
        }
        finally
        {
            if (Directory.Exists(root)) Directory.Delete(root, true);
        }
    }

    /// <summary>A first start that keeps its quantized base, and second starts that read it.</summary>
    private static void Copies(
        string model, Func<IDevice> open, QuantizedCache cache, QuantizationOptions options, int rounds,
        Func<string, long, double, double> note, Action<string>? say, CancellationToken stop)
    {
        using (var source = cache.Open(model, options))
        using (var engine = Load(open(), source, options, stop))
        {
            _ = source.Hash;
            stop.ThrowIfCancellationRequested();
            long start = Stopwatch.GetTimestamp();
            cache.Save(engine, source, options, say);
            double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
            long written = cache.List().Sum(c => c.Bytes);
            if (written == 0)
            {
                say?.Invoke(
                    "the quantized copy was not written: too little free space, or the files have changed just now");
                return;
            }
            note("quantized copy written", written, seconds);
        }
        for (int round = 0; round < rounds; round++)
        {
            var device = open();
            long start = Stopwatch.GetTimestamp();
            using var source = cache.Open(model, options);
            using var engine = Load(device, source, options, stop);
            if (source is not CheckpointSource { Config.Quantized: not null } copy)
            {
                say?.Invoke(
                    "the second start did not find the copy: files that changed just now, or lie on a file system "
                        + "that cannot tell, are not remembered"
                );
                return;
            }
            note("second start, from the copy", copy.Stored.Bytes, Stopwatch.GetElapsedTime(start).TotalSeconds);
        }
    }

    private static CheckpointSource Plain(string model)
    {
        var source = WeightSources.Open(model);
        if (source is CheckpointSource { Config.Quantized: null } plain) return plain;
        source.Dispose();
        throw new HeadroomException(
            $"{model} is no 16- or 32-bit safetensors checkpoint.",
            "Give a Hugging Face folder, or a config.json to make one of.");
    }

    // A load that is stopped or fails waits for the hash: it reads files that the caller may remove next, and not every
    // system removes open ones.
    private static Engine LoadBeside(
        Task? hash, IDevice device, IWeightSource source, QuantizationOptions options, CancellationToken stop)
    {
        try
        {
            return Load(device, source, options, stop);
        }
        catch when (hash != null)
        {
            hash.Wait(CancellationToken.None);
            throw;
        }
    }

    // The last byte that is loaded is read back, so that the device is done too.
    private static Engine Load(
        IDevice device, IWeightSource source, QuantizationOptions options, CancellationToken stop)
    {
        var settings = BaseSettings.Choose(source, device, options);
        var engine = new Engine(device, source, settings, new BatchLimits(), (_, _) =>
            stop.ThrowIfCancellationRequested()
        );
        engine.Read(engine.Model.InverseFrequencies);
        return engine;
    }

    private static LoadBenchmarkResult Shape(Engine engine) =>
        new(
            engine.Device.Name, [], 0, engine.Plan.StaticBytes, engine.Plan.PhaseBytes("load"),
            engine.Model.Projections.Max(p => 4L * p.Weight.Out * p.Weight.In), engine.Device.ReadMemory(),
            engine.Plan.TotalBytes);

    private static void ReadFiles(IReadOnlyList<string> files, int threads, CancellationToken stop)
    {
        var buffers = Buffers(threads);
        foreach (string f in files)
        {
            using var handle = File.OpenHandle(f);
            long length = RandomAccess.GetLength(handle);
            Lanes.Run(threads, (int)((length + Piece - 1) / Piece), (lane, piece) =>
            {
                stop.ThrowIfCancellationRequested();
                int n = (int)Math.Min(Piece, length - (long)piece * Piece), got = 0;
                while (
                    got < n
                    && RandomAccess.Read(handle, buffers[lane].AsSpan(got, n - got), (long)piece * Piece + got)
                        is > 0
                            and var more
                )
                    got += more;
            });
        }
    }

    private static void ReadTensors(CheckpointSource source, int threads, CancellationToken stop)
    {
        var buffers = Buffers(threads);
        foreach (string name in source.Config.MatrixNames())
        {
            var (rows, cols) = source.ShapeOf(name);
            int rowBytes = (int)
                (
                    source.RawType(name)
                    ?? throw new HeadroomException(
                        $"{name} is in a type that is converted on loading.", "Give a checkpoint in bf16, fp16 or fp32."
                    )
                ).Bytes(cols);
            int step = Math.Max(1, Piece / rowBytes);
            if (rowBytes > Piece)
                throw new HeadroomException($"{name} has rows of {rowBytes} bytes.", "Give a model of common size.");
            Lanes.Run(threads, (rows + step - 1) / step, (lane, piece) =>
            {
                stop.ThrowIfCancellationRequested();
                source.ReadRaw(name, piece * step, Math.Min(step, rows - piece * step), buffers[lane]);
            });
        }
    }

    private static byte[][] Buffers(int threads) => [.. Enumerable.Range(0, threads).Select(_ => new byte[Piece])];

    private static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted.Length % 2 == 1
            ? sorted[sorted.Length / 2]
            : (sorted[sorted.Length / 2 - 1] + sorted[sorted.Length / 2]) / 2;
    }
}
