using System.Runtime.InteropServices;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Tests;
using Headroom.Training.Data;

namespace Headroom.Cuda.Tests;

/// <summary>Whole micro-steps: equal bits in two runs, and 16-bit compute against float32.</summary>
public class ModelTests
{
    private static readonly string[] All =
    [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

    private static ModelConfig Config(int headDim, string type) => new()
    {
        ModelType = type,
        HiddenSize = 256,
        IntermediateSize = 704,
        VocabSize = 1000,
        NumHiddenLayers = 3,
        NumAttentionHeads = 256 / headDim,
        NumKeyValueHeads = 256 / headDim / 2,
        HeadDim = headDim,
        RmsNormEps = 1e-5f,
    };

    private static (float Loss, float[][] Grads, float[][] Weights) Run(
        DType compute, int headDim, int recompute, bool ahead = true, bool dora = false, float dropout = 0.1f,
        bool saved = false, string type = "llama")
    {
        var config = Config(headDim, type);
        var settings = new ModelSettings(
            WeightStorage.NF4Double,
            WeightStorage.BF16,
            TrainMode.Adapters,
            new LoraConfig(16, 32, dropout, All)
            {
                UseDora = dora,
                ModulesToSave = saved ? ["lm_head", "embed_tokens", "norm"] : [],
            },
            recompute,
            64,
            compute
        );
        var device = TestDevice.OpenCuda(new CudaOptions(ExpandBytes: 4 << 20, ExpandAhead: ahead));
        int[] lengths = [100, 37, 200];
        using var engine = new Engine(device, config, settings, new BatchLimits(400, 3, 400));
        engine.FillRandom(5);
        engine.InitializeAdapters(3);
        var random = new PhiloxRandom(8);
        foreach (var p in engine.Model.Projections)
            engine.Write(p.B, Enumerable.Range(0, (int)p.B.Count).Select(_ => random.NextNormal() * 0.02f).ToArray());
        var batch = new MicroBatch(400, 3);
        foreach (int n in lengths)
            batch.Add(new EncodedRow(Enumerable.Range(0, n).Select(_ => random.Next(1000)).ToArray(), 1));
        double loss = 0;
        // as the trainer does, else the smallest gradients are below what fp16 can hold
        float scale = compute == DType.F16 ? 1024 : 1;
        float[][] grads = [];
        for (int step = 0; step < 3; step++)
        {
            loss = 0;
            for (int micro = 0; micro < 2; micro++)
                loss += engine.MicroStep(
                    batch.Host, new Dropout(dropout, 7, (uint)(step * 2 + micro), 0), 0.5f * scale / batch.LabelCount);
            if (step == 0) grads = engine.Model.Trained.Select(p => engine.Read(p.Slot.Grad)).ToArray();
            engine.Update(new AdamWStep(1e-3, 0.9, 0.999, 1e-8, step + 1, 1 / scale));
        }
        return ((float)loss, grads, engine.Model.Trained.Select(p => engine.Read(p.Slot.Weight)).ToArray());
    }

    [Theory]
    [
        InlineData(DType.F32, 64, false, 0.1f), InlineData(DType.BF16, 64, false, 0.1f),
        InlineData(DType.BF16, 128, false, 0.1f), InlineData(DType.F16, 64, false, 0.1f)]
    [
        InlineData(DType.F32, 64, true, 0.1f), InlineData(DType.BF16, 64, true, 0f),
        InlineData(DType.BF16, 128, true, 0.1f)]
    [InlineData(DType.BF16, 64, false, 0.1f, true)]
    [InlineData(DType.F32, 64, false, 0.1f, false, "qwen3"), InlineData(DType.BF16, 128, true, 0.1f, true, "qwen3")]
    internal void TwoRunsAreEqualBitForBit(
        DType compute, int headDim, bool dora, float dropout, bool saved = false, string type = "llama")
    {
        (float Loss, float[][] Grads, float[][] Weights) Again(int recompute, bool ahead = true) =>
            Run(compute, headDim, recompute, ahead, dora, dropout, saved, type);
        var a = Again(0);
        foreach (var b in new[] { Again(0), Again(-1), Again(0, ahead: false) })
        {
            Assert.Equal(BitConverter.SingleToUInt32Bits(a.Loss), BitConverter.SingleToUInt32Bits(b.Loss));
            for (int i = 0; i < a.Weights.Length; i++)
                Assert.True(
                    MemoryMarshal
                        .AsBytes(a.Weights[i].AsSpan())
                        .SequenceEqual(MemoryMarshal.AsBytes(b.Weights[i].AsSpan())),
                    $"weights of tensor {i} differ"
                );
        }
    }

    /// <summary>
    /// Losses of the base alone are those of an engine without adapters, but for rounding where an adapter's room lies
    /// behind the rows; those with adapters stay as they were.
    /// </summary>
    [Theory, InlineData(DType.F32, false), InlineData(DType.BF16, false), InlineData(DType.BF16, true)]
    internal void TheBaseIsThereByItself(DType compute, bool dora)
    {
        Engine Open(bool adapted)
        {
            var settings = new ModelSettings(
                WeightStorage.NF4Double, WeightStorage.BF16, adapted ? TrainMode.Adapters : TrainMode.None,
                adapted ? new LoraConfig(16, 32, 0.1f, All) { UseDora = dora } : null, 0, 64, compute);
            var engine = new Engine(
                TestDevice.OpenCuda(), Config(64, "llama"), settings, new BatchLimits(0, 0, 0, 400, 3));
            engine.FillRandom(5);
            if (adapted) engine.InitializeAdapters(3);
            var random = new PhiloxRandom(8);
            foreach (var p in engine.Model.Projections)
                if (!p.B.IsNone)
                    engine.Write(
                        p.B, Enumerable.Range(0, (int)p.B.Count).Select(_ => random.NextNormal() * 0.2f).ToArray());
            return engine;
        }
        using Engine adapted = Open(true), plain = Open(false);
        var ids = new PhiloxRandom(9);
        var batch = new MicroBatch(400, 3);
        foreach (int n in new[] { 100, 37, 200 })
            batch.Add(new EncodedRow(Enumerable.Range(0, n).Select(_ => ids.Next(1000)).ToArray(), 1));
        float[] own = new float[batch.LabelCount], bare = new float[batch.LabelCount];
        double with = adapted.Losses(batch.Host, own), sum = plain.Losses(batch.Host, bare);
        for (int i = 0; i < 2; i++)
        {
            Assert.Equal(sum, adapted.Losses(batch.Host, adapters: false), sum * (compute == DType.F32 ? 1e-6 : 1e-3));
            Assert.Equal(with, adapted.Losses(batch.Host));
        }
        Assert.True(own.Zip(bare).Max(p => Math.Abs(p.First - p.Second)) > 0.05, "adapters that do nothing");
    }

    [Theory]
    [
        InlineData(DType.BF16, 64, false, 0.1f), InlineData(DType.BF16, 128, false, 0.1f),
        InlineData(DType.F16, 128, false, 0.1f)]
    [
        InlineData(DType.BF16, 64, true, 0f), InlineData(DType.F16, 128, true, 0.1f),
        InlineData(DType.BF16, 128, true, 0.1f), InlineData(DType.BF16, 64, false, 0f, true)]
    [InlineData(DType.BF16, 128, false, 0.1f, false, "qwen3"), InlineData(DType.F16, 64, false, 0.1f, true, "qwen3")]
    internal void SixteenBitIsNearFloat(
        DType compute, int headDim, bool dora, float dropout, bool saved = false, string type = "llama")
    {
        var a = Run(DType.F32, headDim, 0, dora: dora, dropout: dropout, saved: saved, type: type);
        var b = Run(compute, headDim, 0, dora: dora, dropout: dropout, saved: saved, type: type);
        Assert.Equal(a.Loss, b.Loss, Math.Abs(a.Loss) * 0.01f);
        for (int i = 0; i < a.Grads.Length; i++)
        {
            double dot = 0, na = 0, nb = 0;
            for (int k = 0; k < a.Grads[i].Length; k++)
            {
                dot += (double)a.Grads[i][k] * b.Grads[i][k];
                na += (double)a.Grads[i][k] * a.Grads[i][k];
                nb += (double)b.Grads[i][k] * b.Grads[i][k];
            }
            double cosine = dot / Math.Sqrt(na * nb);
            Assert.True(cosine >= 0.999, $"tensor {i}: cosine {cosine:F5}");
        }
    }
}
