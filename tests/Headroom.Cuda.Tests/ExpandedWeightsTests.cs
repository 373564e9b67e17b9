using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests;
using Headroom.Training.Data;

namespace Headroom.Cuda.Tests;

/// <summary>
/// Weights that stay expanded: the same bits as weights that are expanded when they are asked for, however much room
/// there is.
/// </summary>
public class ExpandedWeightsTests
{
    private static readonly string[] All =
    [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    private const int Rows = 3, Length = 70, Layers = 3;

    private static readonly ModelConfig Config = new()
    {
        ModelType = "llama",
        HiddenSize = 256,
        IntermediateSize = 704,
        VocabSize = 500,
        NumHiddenLayers = Layers,
        NumAttentionHeads = 4,
        NumKeyValueHeads = 2,
        HeadDim = 64,
        RmsNormEps = 1e-5f,
    };

    private static ModelSettings Settings(
        DType compute, WeightStorage storage, int recompute, string[] targets, int r = 16) =>
        new(
            storage, WeightStorage.BF16, TrainMode.Adapters, new LoraConfig(r, 2 * r, 0.1f, targets), recompute, 64,
            compute);

    // Losses of micro-steps and evaluations, and the adapters after the last update.
    private static (List<double> Losses, float[][] Weights, int Count, long Bytes) Run(
        ModelSettings settings, long room, bool graphs, bool ahead, long piece)
    {
        var device = TestDevice.OpenCuda(new CudaOptions(ExpandBytes: piece, ExpandAhead: ahead, Graphs: graphs));
        using var engine = new Engine(
            device,
            Config,
            settings with
            {
                ExpandedBytes = room,
            },
            new BatchLimits(Rows * Length, Rows, Rows * Length, Rows * Length, Rows)
        );
        engine.FillRandom(5);
        engine.InitializeAdapters(3);
        var random = new PhiloxRandom(8);
        foreach (var p in engine.Model.Projections)
            if (!p.B.IsNone)
                engine.Write(
                    p.B, Enumerable.Range(0, (int)p.B.Count).Select(_ => random.NextNormal() * 0.02f).ToArray());
        var batch = new MicroBatch(Rows * Length, Rows);
        for (int r = 0; r < Rows; r++)
            batch.Add(new EncodedRow(Enumerable.Range(0, Length).Select(_ => random.Next(500)).ToArray(), 1));
        var losses = new List<double>();
        for (uint micro = 0; micro < 8; micro++)
        {
            losses.Add(engine.Losses(batch.Host));
            losses.Add(engine.MicroStep(batch.Host, new Dropout(0.1f, 7, micro, 0), 1e-3f));
            if (micro % 2 == 1) engine.Update(new AdamWStep(1e-2, 0.9, 0.999, 1e-8, (int)micro / 2 + 1, 1));
        }
        losses.Add(engine.Losses(batch.Host));
        Assert.Null(device.Notice);
        if (graphs) Assert.True(device.Graphs.Replays > 0);
        return (
            losses, engine.Model.Trained.Select(p => engine.Read(p.Slot.Weight)).ToArray(), device.Expanded.Count,
            device.Expanded.Bytes);
    }

    public static IEnumerable<ITheoryDataRow> Cases => new TheoryData<DType, WeightStorage, int, bool, bool, int>()
    {
            { DType.BF16, WeightStorage.NF4Double, 0, false, true, 16 },
            { DType.BF16, WeightStorage.NF4Double, -1, false, true, 16 },
            { DType.F16, WeightStorage.NF4, 1, true, true, 16 },
            { DType.BF16, WeightStorage.NF4Double, 0, true, false, 8 },
            { DType.BF16, WeightStorage.Int8, 0, false, true, 64 },
            { DType.F32, WeightStorage.NF4Double, -1, false, false, 16 },
    };

    [Theory, MemberData(nameof(Cases))]
    internal void RoomChangesNoBit(DType compute, WeightStorage storage, int recompute, bool graphs, bool ahead, int r)
    {
        // Half of the projections have adapters in the second round: groups with and without further columns.
        foreach (string[] targets in new[] { All, ["q_proj", "down_proj"] })
        {
            var settings = Settings(compute, storage, recompute, targets, r);
            long all = PlannedModel.ExpandableBytes(Config, settings);
            foreach (long piece in new[] { 4L << 20, 64 << 10 }) // whole, and in pieces of rows
            {
                var none = Run(settings, 0, graphs, ahead, piece);
                Assert.Equal(0, none.Count);
                foreach (long room in piece < 4 << 20 ? [all] : new[] { 1L << 20, all / 2, all })
                {
                    var some = Run(settings, room, graphs, ahead, piece);
                    Assert.InRange(some.Bytes, 1, room);
                    if (room == all)
                        Assert.True(some.Count >= Layers * 7 - 3, $"{some.Count} "
                            + $"stay"); // the first layer's q, k and v are asked for once a step
                    Assert.Equal(none.Losses, some.Losses);
                    for (int i = 0; i < none.Weights.Length; i++)
                        Assert.True(
                            MemoryMarshal
                                .AsBytes(none.Weights[i].AsSpan())
                                .SequenceEqual(MemoryMarshal.AsBytes(some.Weights[i].AsSpan())),
                            $"{targets.Length} targets, room {room}, piece {piece}: weights of tensor {i} differ"
                        );
                }
            }
        }
    }

    [Fact]
    public void WeightsThatChangeAreExpandedAnew()
    {
        var settings = Settings(DType.BF16, WeightStorage.NF4Double, 0, All);
        double[] Losses(long room)
        {
            var device = TestDevice.OpenCuda(new CudaOptions(ExpandBytes: 4 << 20));
            using var engine = new Engine(
                device,
                Config,
                settings with
                {
                    ExpandedBytes = room,
                },
                new BatchLimits(Length, 1, Length)
            );
            var batch = new MicroBatch(Length, 1);
            batch.Add(new EncodedRow(Enumerable.Range(0, Length).ToArray(), 1));
            var losses = new List<double>();
            foreach (ulong seed in new ulong[] { 1, 2 })
            {
                engine.FillRandom(seed);
                engine.InitializeAdapters(3);
                for (uint i = 0; i < 3; i++)
                    losses.Add(engine.MicroStep(batch.Host, new Dropout(0.1f, 7, i, 0), 1e-3f));
            }
            return [.. losses];
        }
        var without = Losses(0);
        Assert.NotEqual(without[0], without[3]);
        Assert.Equal(without, Losses(8 << 20));
    }
}
