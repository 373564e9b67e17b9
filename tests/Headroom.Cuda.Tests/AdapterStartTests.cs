using Headroom.Core;
using Headroom.Cpu;
using Headroom.Inference;
using Headroom.Models;
using Headroom.Training.Adapters;

namespace Headroom.Cuda.Tests;

/// <summary>
/// PiSSA and LoftQ on a GPU: the same adapters and the same stored base as on the CPU, whose tests say that both are
/// right.
/// </summary>
public class AdapterStartTests
{
    private static readonly ModelConfig Config = new()
    {
        ModelType = "llama",
        HiddenSize = 128,
        IntermediateSize = 320,
        VocabSize = 300,
        NumHiddenLayers = 2,
        NumAttentionHeads = 2,
        NumKeyValueHeads = 2,
        HeadDim = 64,
        RmsNormEps = 1e-5f,
    };

    [Theory, InlineData("pissa", 1, false), InlineData("pissa_niter_4", 1, true), InlineData("loftq", 2, false)]
    public void TheCpusBits(string init, int rounds, bool dora)
    {
        var lora = new LoraConfig(16, 32, 0, ["q_proj", "down_proj", "up_proj"])
        {
            InitLoraWeights = init,
            LoftqConfig = new() { LoftqIter = rounds },
            UseDora = dora,
        };
        var settings = new ModelSettings(WeightStorage.NF4Double, WeightStorage.BF16, TrainMode.Adapters, lora);
        Engine Started(IDevice device)
        {
            var engine = new Engine(device, new Source(), settings, new BatchLimits(32, 1, 32));
            AdapterStart.Run(engine, new Source(), 9);
            return engine;
        }
        using Engine cpu = Started(new CpuDevice(4)), gpu = Started(Headroom.Tests.TestDevice.OpenCuda());
        foreach (var (p, q) in cpu.Model.Projections.Zip(gpu.Model.Projections))
        {
            float[] a = new float[p.Weight.Out * p.Weight.In], b = new float[a.Length];
            cpu.ReadBase(p, a);
            gpu.ReadBase(q, b);
            Assert.Equal(a, b);
            if (p.Rank == 0) continue;
            Assert.Equal(cpu.Read(p.A), gpu.Read(q.A));
            Assert.Equal(cpu.Read(p.B), gpu.Read(q.B));
            if (dora)
                foreach (var (x, y) in cpu.Read(p.Magnitude).Zip(gpu.Read(q.Magnitude)))
                    Assert.Equal(x, y, 1e-5f * x);
        }
    }

    private sealed class Source : IWeightSource
    {
        ModelConfig IWeightSource.Config => Config;
        public string Hash => "random";
        public bool Has(string hfName) => true;
        public DType SourceDType(string hfName) => DType.F32;

        public (int Rows, int Cols) ShapeOf(string hfName)
        {
            int h = Config.HiddenSize, inter = Config.IntermediateSize;
            return hfName.Split('.')[^2] switch
            {
                "embed_tokens" or "lm_head" => (Config.VocabSize, h),
                "gate_proj" or "up_proj" => (inter, h),
                "down_proj" => (h, inter),
                "norm" or "input_layernorm" or "post_attention_layernorm" => (h, 1),
                _ => (h, h),
            };
        }

        public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
        {
            int columns = ShapeOf(hfName).Cols;
            uint stream = hfName.Aggregate(17u, (hash, c) => hash * 31 + c);
            for (int r = 0; r < rowCount; r++)
            {
                var random = new PhiloxRandom((ulong)(firstRow + r), stream);
                for (int i = 0; i < columns; i++) destination[r * columns + i] = random.NextNormal() * 0.1f;
            }
        }

        public void Dispose() { }
    }
}
