using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Training.Data;

namespace Headroom.Tests.Models;

/// <summary>Small random models and batches that need no file.</summary>
internal static class TinyModel
{
    public static readonly string[] AllProjections =
    [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

    /// <summary>A few hundred parameters a layer: every one can be moved for a central difference.</summary>
    public static ModelConfig Smallest(
        bool tied = false, bool bias = false, int? window = null, string type = "llama") =>
        new()
        {
            ModelType = type,
            VocabSize = 13,
            HiddenSize = 12,
            IntermediateSize = 10,
            NumHiddenLayers = 2,
            NumAttentionHeads = 4,
            NumKeyValueHeads = 2,
            HeadDim = 4,
            RmsNormEps = 1e-5f,
            TieWordEmbeddings = tied,
            AttentionBias = bias,
            SlidingWindow = window,
        };

    /// <summary>Large enough for the vector paths and for several chunks of the head.</summary>
    public static ModelConfig Small(int layers = 3, string type = "llama") => new()
    {
        ModelType = type,
        VocabSize = 200,
        HiddenSize = 96,
        IntermediateSize = 168,
        NumHiddenLayers = layers,
        NumAttentionHeads = 6,
        NumKeyValueHeads = 2,
        HeadDim = 16,
        RmsNormEps = 1e-5f,
    };

    public static LoraConfig Lora(float dropout = 0, int r = 4, bool dora = false) =>
        new(r, 2 * r, dropout, AllProjections) { UseDora = dora };

    /// <summary>
    /// Random rows of the given lengths; the first <paramref name="unlabelled"/> tokens of each are the prompt.
    /// </summary>
    public static List<EncodedRow> Rows(ModelConfig config, int[] lengths, int unlabelled = 1)
    {
        var random = new PhiloxRandom(99);
        return lengths
            .Select(n => new EncodedRow(
                Enumerable.Range(0, n).Select(_ => random.Next(config.VocabSize)).ToArray(), Math.Min(unlabelled, n - 1)
            ))
            .ToList();
    }

    public static MicroBatch Batch(IReadOnlyList<EncodedRow> rows)
    {
        var batch = new MicroBatch(rows.Sum(r => r.Ids.Length), rows.Count);
        foreach (var r in rows) batch.Add(r);
        return batch;
    }

    public static Engine Open(
        ModelConfig config, ModelSettings settings, int tokens, int sequences, IDevice? device = null,
        bool weights = false)
    {
        var engine = new Engine(
            device ?? new CpuDevice(2), new RandomSource(config), settings,
            new BatchLimits(tokens, sequences, tokens, tokens, sequences, LabelWeights: weights));
        var random = new PhiloxRandom(5);
        foreach (var p in engine.Model.Projections)
            foreach (var t in new[] { p.A, p.B })
                if (!t.IsNone)
                    engine.Write(t,
                        Enumerable.Range(0, (int)t.Count).Select(_ => random.NextNormal() * 0.3f).ToArray());
        foreach (var p in engine.Model.Projections)
            if (!p.Magnitude.IsNone)
                engine.Write(
                    p.Magnitude,
                    Enumerable.Range(0, (int)p.Magnitude.Count).Select(_ => 1 + random.NextNormal() * 0.3f).ToArray());
        return engine;
    }

    public static Dictionary<string, float[]> Gradients(Engine engine) =>
        engine.Model.Trained.ToDictionary(p => p.Name, p => engine.Read(p.Slot.Grad));

    public static void Near(double[] expected, float[] actual, double relative, string what)
    {
        Assert.Equal(expected.Length, actual.Length);
        double largest = expected.Max(Math.Abs), worst = 0;
        for (int i = 0; i < expected.Length; i++)
            worst = Math.Max(
                worst, double.IsFinite(actual[i]) ? Math.Abs(expected[i] - actual[i]) : double.PositiveInfinity);
        Assert.True(worst <= relative * largest, $"{what}: differs by {worst}, largest {largest}");
    }
}
