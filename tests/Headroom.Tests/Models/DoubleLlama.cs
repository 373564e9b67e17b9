using Headroom.Core;
using Headroom.Tests.Cpu;

namespace Headroom.Tests.Models;

/// <summary>
/// The whole model once more, in plain loops and double precision, straight from its equations (transformers
/// <c>modeling_llama.py</c>, <c>modeling_qwen3.py</c>, PEFT
/// <c>lora/layer.py</c>); only a forward pass, for losses and their central differences. Parameters by Hugging Face /
/// PEFT name.
/// </summary>
internal sealed class DoubleLlama(ModelConfig c, LoraConfig? lora, Dropout dropout)
{
    private static readonly string[] Order =
    [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    private readonly Dictionary<string, double[]> _masks = [], _norms = [];

    /// <summary>label_smoothing_factor (transformers <c>trainer_pt_utils.py</c>, LabelSmoother).</summary>
    public double LabelSmoothing { get; init; }
    /// <summary>neftune_noise_alpha; key and step are those of dropout.</summary>
    public float NeftuneNoiseAlpha { get; init; }

    /// <summary>Every parameter by name.</summary>
    public Dictionary<string, double[]> P { get; } = [];

    /// <summary>Token losses of a packed batch.</summary>
    public double[] Losses(int[] ids, int[] positions, int[] offsets, int[] labelRows, int[] labels)
    {
        int t = ids.Length, h = c.HiddenSize;
        double[] table = P["model.embed_tokens.weight"], x = new double[t * h];
        for (int i = 0; i < t; i++) Array.Copy(table, ids[i] * h, x, i * h, h);
        if (NeftuneNoiseAlpha > 0) x = Reference.Plus(x, Noise(offsets, h));
        for (int l = 0; l < c.NumHiddenLayers; l++)
        {
            string p = $"model.layers.{l}.";
            var n = Norm(x, p + "input_layernorm.weight");
            double[] q = Rope(
                HeadNorm(Linear(n, p + "self_attn.q_proj", l, t), p + "self_attn.q_norm.weight"), positions,
                c.NumAttentionHeads);
            double[] k = Rope(
                HeadNorm(Linear(n, p + "self_attn.k_proj", l, t), p + "self_attn.k_norm.weight"), positions,
                c.NumKeyValueHeads);
            double[] v = Linear(n, p + "self_attn.v_proj", l, t);
            x = Reference.Plus(
                x,
                Linear(
                    Attention(q, k, v, offsets, c.LayerSlides(l) ? c.SlidingWindow ?? 0 : 0), p + "self_attn.o_proj", l,
                    t)
            );
            n = Norm(x, p + "post_attention_layernorm.weight");
            double[] gate = Linear(n, p + "mlp.gate_proj", l, t), up = Linear(n, p + "mlp.up_proj", l, t);
            x = Reference.Plus(
                x, Linear(gate.Zip(up, (g, u) => g / (1 + Math.Exp(-g)) * u).ToArray(), p + "mlp.down_proj", l, t));
        }
        x = Norm(x, "model.norm.weight");
        double[] head = P.GetValueOrDefault("lm_head.weight", table),
            losses = new double[labels.Length],
            z = new double[c.VocabSize];
        for (int i = 0; i < labels.Length; i++)
        {
            for (int w = 0; w < z.Length; w++) z[w] = Dot(x, labelRows[i] * h, head, w * h, h);
            double max = z.Max();
            double lse = max + Math.Log(z.Sum(e => Math.Exp(e - max)));
            losses[i] = (1 - LabelSmoothing) * (lse - z[labels[i]]) + LabelSmoothing * z.Average(e => lse - e);
        }
        return losses;
    }

    // Jain et al., 2023: uniform, of magnitude alpha / sqrt(L d), L that of the row's own sequence.
    private double[] Noise(int[] offsets, int h)
    {
        var noise = new double[offsets[^1] * h];
        for (int s = 0; s + 1 < offsets.Length; s++)
            for (int row = offsets[s]; row < offsets[s + 1]; row++)
                for (int i = 0; i < h; i++)
                {
                    var r = Philox.Next((uint)i / 4, (uint)row, uint.MaxValue, dropout.Step, (uint)dropout.Seed,
                        (uint)(dropout.Seed >> 32));
                    uint word = new[] { r.X0, r.X1, r.X2, r.X3 }[i % 4];
                    noise[row * h + i] = NeftuneNoiseAlpha / Math.Sqrt((offsets[s + 1] - offsets[s]) * h)
                        * ((word >> 8) / 8388608.0 - 1);
                }
        return noise;
    }

    private double[] Linear(double[] x, string path, int layer, int t)
    {
        double[] w = P[path + ".weight"];
        int ins = x.Length / t, outs = w.Length / ins;
        var y = Reference.TimesTransposed(x, w, t, outs, ins);
        if (P.TryGetValue(path + ".bias", out double[]? bias))
            for (int i = 0; i < y.Length; i++) y[i] += bias[i % outs];
        if (lora == null || !P.TryGetValue(path + ".lora_A.weight", out double[]? a)) return y;
        if (!_masks.TryGetValue(path, out double[]? mask))
            _masks[path] = mask = Reference.Mask(
                dropout with
                {
                    Site = (uint)(layer * 8 + Array.IndexOf(Order, path.Split('.')[^1])),
                },
                x.Length
            );
        float scaling = lora.For(path).Scaling;
        var dropped = x.Zip(mask, (v, m) => v * m).ToArray();
        double[] b = P[path + ".lora_B.weight"],
            delta = Reference.TimesTransposed(
                Reference.TimesTransposed(dropped, a, t, lora.R, ins), b, t, outs, lora.R);
        if (!P.TryGetValue(path + ".lora_magnitude_vector", out double[]? magnitude))
            return Reference.Plus(y, delta.Select(v => v * scaling).ToArray());
        // PEFT's dora.py: the norm is a constant of the gradient, here those of the first pass.
        if (!_norms.TryGetValue(path, out double[]? norms))
        {
            norms = new double[outs];
            for (int o = 0; o < outs; o++)
                for (int i = 0; i < ins; i++)
                {
                    double sum = w[o * ins + i];
                    for (int k = 0; k < lora.R; k++) sum += scaling * b[o * lora.R + k] * a[k * ins + i];
                    norms[o] += sum * sum;
                }
            _norms[path] = norms = norms.Select(Math.Sqrt).ToArray();
        }
        var again = Reference.TimesTransposed(dropped, w, t, outs, ins);
        for (int i = 0; i < y.Length; i++)
        {
            double c = magnitude[i % outs] / norms[i % outs];
            y[i] += (c - 1) * again[i] + c * scaling * delta[i];
        }
        return y;
    }

    // modeling_qwen3.py: the same norm over each head, where the model has its weight.
    private double[] HeadNorm(double[] x, string name) => P.ContainsKey(name) ? Norm(x, name) : x;

    private double[] Norm(double[] x, string name)
    {
        int h = P[name].Length;
        double[] w = P[name], y = new double[x.Length];
        for (int at = 0; at < x.Length; at += h)
        {
            double r = 1 / Math.Sqrt(Dot(x, at, x, at, h) / h + c.RmsNormEps);
            for (int i = 0; i < h; i++) y[at + i] = x[at + i] * r * w[i];
        }
        return y;
    }

    private double[] Rope(double[] x, int[] positions, int heads)
    {
        int d = c.HeadDim, half = d / 2;
        float[] frequencies = c.InverseFrequencies(out float factor);
        var y = new double[x.Length];
        for (int i = 0; i < x.Length; i++)
        {
            int k = i % d;
            double angle = positions[i / (heads * d)] * (double)frequencies[k % half];
            y[i] = factor * (x[i] * Math.Cos(angle) + (k < half ? -x[i + half] : x[i - half]) * Math.Sin(angle));
        }
        return y;
    }

    private double[] Attention(double[] q, double[] k, double[] v, int[] offsets, int window)
    {
        int heads = c.NumAttentionHeads, kv = c.NumKeyValueHeads, d = c.HeadDim;
        var o = new double[q.Length];
        for (int s = 0; s + 1 < offsets.Length; s++)
            for (int i = offsets[s]; i < offsets[s + 1]; i++)
                for (int h = 0; h < heads; h++)
                {
                    int first = window > 0 ? Math.Max(offsets[s], i - window + 1) : offsets[s],
                        kvHead = h / (heads / kv);
                    var scores = new double[i - first + 1];
                    for (int j = first; j <= i; j++)
                        scores[j - first] = Dot(q, (i * heads + h) * d, k, (j * kv + kvHead) * d, d) / Math.Sqrt(d);
                    double max = scores.Max(), sum = scores.Sum(e => Math.Exp(e - max));
                    for (int j = first; j <= i; j++)
                        for (int e = 0; e < d; e++)
                            o[(i * heads + h) * d + e] +=
                                Math.Exp(scores[j - first] - max) / sum * v[(j * kv + kvHead) * d + e];
                }
        return o;
    }

    private static double Dot(double[] a, int i, double[] b, int j, int n)
    {
        double sum = 0;
        for (int k = 0; k < n; k++) sum += a[i + k] * b[j + k];
        return sum;
    }
}
