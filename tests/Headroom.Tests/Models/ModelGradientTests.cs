using Headroom.Core;
using Headroom.Inference;
using Headroom.Models;

namespace Headroom.Tests.Models;

/// <summary>
/// Losses and the gradient of every trained element of a whole model against a second, double-precision model and its
/// central differences.
/// </summary>
public class ModelGradientTests
{
    private const double H = 1e-5;

    [Theory]
    [InlineData(0f, false, false, null)]
    [InlineData(0.1f, false, false, null)]
    [InlineData(0.3f, true, true, 3)]
    [InlineData(0f, false, false, null, "qwen3")]
    [InlineData(0.3f, true, true, 3, "qwen3")]
    public void AdapterGradients(float dropout, bool tied, bool bias, int? window, string type = "llama")
    {
        var config = TinyModel.Smallest(tied, bias, window, type);
        Compare(
            config,
            new ModelSettings(
                WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(dropout, r: 2), LogitsChunk: 4
            ),
            new Dropout(dropout, 123, 9, 0)
        );
    }

    [Theory]
    [InlineData(0f, false, false, 0)]
    [InlineData(0f, true, true, -1)]
    [InlineData(0.3f, true, true, 0)]
    [InlineData(0.1f, false, true, 1)]
    [InlineData(0.1f, false, true, 1, "qwen3")]
    public void DoraGradients(float dropout, bool tied, bool bias, int recompute, string type = "llama")
    {
        var settings = new ModelSettings(
            WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(dropout, r: 2, dora: true),
            recompute, LogitsChunk: 4);
        Compare(TinyModel.Smallest(tied, bias, type: type), settings, new Dropout(dropout, 123, 9, 0));
    }

    [Theory]
    [InlineData(0f)]
    [InlineData(0.2f)]
    public void DoraOfSomeProjectionsOnly(float dropout)
    {
        var lora = new LoraConfig(2, 4, dropout, ["v_proj", "up_proj", "down_proj"])
        {
            UseRslora = true,
            UseDora = true,
        };
        Compare(
            TinyModel.Smallest(),
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, lora, LogitsChunk: 4),
            new Dropout(dropout, 5, 1, 0));
    }

    /// <summary>
    /// modules_to_save: trained whole beside the adapters; a tied head or table that is trained is a copy (PEFT).
    /// </summary>
    [Theory]
    [InlineData(false, "lm_head")]
    [InlineData(false, "embed_tokens")]
    [InlineData(false, "norm")]
    [InlineData(true, "lm_head,embed_tokens,model.norm")]
    [InlineData(true, "embed_tokens")]
    [InlineData(true, "lm_head,0.input_layernorm")]
    [InlineData(false, "0.self_attn.q_norm,k_norm", "qwen3")]
    public void SavedModuleGradients(bool tied, string modules, string type = "llama")
    {
        var lora = new LoraConfig(2, 4, 0.1f, ["q_proj", "v_proj", "down_proj"])
        {
            ModulesToSave = [.. modules.Split(',')],
        };
        Compare(
            TinyModel.Smallest(tied, type: type),
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, lora, LogitsChunk: 4),
            new Dropout(0.1f, 3, 2, 0),
            names =>
        {
            foreach (string m in modules.Split(','))
                Assert.Contains(names, n => n.EndsWith(m + ".weight", StringComparison.Ordinal));
            Assert.Equal(2 * 3 * 2, names.Count(n => n.Contains("lora_", StringComparison.Ordinal)));
        });
    }

    [Theory]
    [InlineData(false, false, null)]
    [InlineData(true, true, 3)]
    [InlineData(true, false, 3, "qwen3")]
    public void FullGradients(bool tied, bool bias, int? window, string type = "llama") =>
        Compare(
            TinyModel.Smallest(tied, bias, window, type),
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Full, LogitsChunk: 4), default);

    [Fact]
    public void AdaptersOfSomeProjectionsOnly()
    {
        var lora = new LoraConfig(2, 4, 0, ["v_proj", "down_proj"]);
        Compare(
            TinyModel.Smallest(),
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, lora, LogitsChunk: 4), default);
    }

    /// <summary>Weights of labels, smoothed labels and noise on the embeddings, each and together.</summary>
    [Theory]
    [InlineData(true, 0f, 0f, TrainMode.Adapters)]
    [InlineData(false, 0.1f, 0f, TrainMode.Adapters)]
    [InlineData(false, 0f, 5f, TrainMode.Adapters)]
    [InlineData(true, 0.3f, 5f, TrainMode.Adapters)]
    [InlineData(true, 0.3f, 5f, TrainMode.Full)]
    internal void WeightsSmoothingAndNoise(bool weights, float smoothing, float alpha, TrainMode mode)
    {
        var settings = new ModelSettings(WeightStorage.F32, WeightStorage.F32, mode,
            mode == TrainMode.Full ? null : TinyModel.Lora(0.1f, r: 2), LogitsChunk: 4)
        {
            LabelSmoothing = smoothing,
            NeftuneNoiseAlpha = alpha,
        };
        float[] factors = [0.5f, 2, 1, 0, 3, -1, 0.25f];
        Compare(TinyModel.Smallest(), settings, new Dropout(mode == TrainMode.Full ? 0 : 0.1f, 123, 9, 0),
            weights: weights ? i => factors[i % factors.Length] : null);
    }

    /// <summary>
    /// Direct preference optimization (Rafailov et al., 2023, equation 7) of two sequences of a batch: its gradient is
    /// that of the labels' losses, each times the derivative of the whole by it.
    /// </summary>
    [Theory, InlineData(0), InlineData(-1)]
    public void GradientsOfALossOfSequences(int recompute)
    {
        const double beta = 0.7, reference = -1.5; // log-probability of chosen less rejected, of the reference model
        // Rows of 6, 2 and 5 tokens have 4, 1 and 3 labels: the first is chosen, the last rejected, the other neither.
        const int chosen = 4, rejected = 5;
        static double Margin(double[] losses) =>
            beta * (losses[rejected..].Sum() - losses[..chosen].Sum() - reference);
        Compare(TinyModel.Smallest(),
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora(0.1f, r: 2),
                recompute, LogitsChunk: 4),
            new Dropout(0.1f, 123, 9, 0),
            whole: losses => Math.Log(1 + Math.Exp(-Margin(losses))),
            weigh: (losses, weights) =>
            {
                Assert.Equal(8, losses.Length);
                float slope = (float)(beta / (1 + Math.Exp(Margin([.. losses.ToArray().Select(l => (double)l)]))));
                weights.Clear();
                weights[..chosen].Fill(slope);
                weights[rejected..].Fill(-slope);
            });
    }

    [Fact]
    public void ALossOfSequencesTakesNoSmoothedLabels()
    {
        var config = TinyModel.Smallest();
        var batch = TinyModel.Batch(TinyModel.Rows(config, [6]));
        using var engine = TinyModel.Open(config,
            new ModelSettings(WeightStorage.F32, WeightStorage.F32, TrainMode.Adapters, TinyModel.Lora())
            { LabelSmoothing = 0.1f }, 6, 1, weights: true);
        var e = Assert.Throws<HeadroomException>(() => engine.MicroStep(batch.Host, default, 1, (_, w) => w.Fill(1)));
        Assert.Contains("label_smoothing_factor", e.ToDo);
    }

    private static void Compare(
        ModelConfig config, ModelSettings settings, Dropout dropout, Action<IReadOnlyList<string>>? check = null,
        Func<int, float>? weights = null, Func<double[], double>? whole = null, LabelWeigher? weigh = null)
    {
        var source = new RandomSource(config);
        var rows = TinyModel.Rows(config, [6, 2, 5], unlabelled: 2);
        var batch = TinyModel.Batch(rows);
        float[] factors = weights == null ? [] : [.. Enumerable.Range(0, batch.LabelCount).Select(weights)];
        using var engine = TinyModel.Open(
            config, settings, batch.Tokens, batch.Sequences, weights: weights != null || weigh != null);
        var reference = new DoubleLlama(config, settings.Lora, dropout)
        {
            LabelSmoothing = settings.LabelSmoothing,
            NeftuneNoiseAlpha = settings.NeftuneNoiseAlpha,
        };
        var names = new List<string> { "model.embed_tokens.weight" };
        names.AddRange(engine.Model.Norms.Select(n => n.Name));
        names.AddRange(engine.Model.Projections.Select(p => p.Path + ".weight"));
        names.AddRange(engine.Model.Projections.Where(p => !p.Weight.Bias.IsNone).Select(p => p.Path + ".bias"));
        foreach (string name in names) reference.P[name] = Array.ConvertAll(source.Values(name), v => (double)v);
        if (engine.Model.HasOwnHead)
            reference.P["lm_head.weight"] = Array.ConvertAll(
                source.Values(config.TieWordEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight"), v => (double)v
            );
        foreach (var p in engine.Model.Trained)
            reference.P[p.Name] = Array.ConvertAll(engine.Read(p.Slot.Weight), v => (double)v);

        check?.Invoke([.. engine.Model.Trained.Select(t => t.Name)]);
        float scale = 1f / batch.LabelCount;
        var host = batch.Host;
        host = new(host.Ids, host.Positions, host.Offsets, host.LabelRows, host.Labels, factors);
        double sum = weigh == null
                ? engine.MicroStep(host, dropout, scale) : engine.MicroStep(host, dropout, scale, weigh),
            expected = Losses().Select((l, i) => factors.Length > 0 ? factors[i] * l : l).Sum();
        Assert.Equal(expected, sum, 2e-6 * expected);
        foreach (var p in engine.Model.Trained)
        {
            double[] values = reference.P[p.Name], gradient = new double[values.Length];
            for (int i = 0; i < values.Length; i++)
            {
                double keep = values[i];
                values[i] = keep + H;
                double up = Sum();
                values[i] = keep - H;
                gradient[i] = (up - Sum()) / (2 * H) * scale;
                values[i] = keep;
            }
            TinyModel.Near(gradient, engine.Read(p.Slot.Grad), 1e-5, p.Name);
        }

        double Sum() => whole != null ? whole(Losses())
            : Losses().Select((l, i) => factors.Length > 0 ? factors[i] * l : l).Sum();

        double[] Losses() =>
            reference
                .Losses(
                    batch.Host.Ids.ToArray(), batch.Host.Positions.ToArray(), batch.Host.Offsets.ToArray(),
                    batch.Host.LabelRows.ToArray(), batch.Host.Labels.ToArray());
    }
}
