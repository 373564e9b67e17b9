using Headroom.Core;

namespace Headroom.Training;

/// <summary>How the next token is chosen (transformers <c>GenerationConfig</c>).</summary>
public sealed class SamplingOptions
{
    /// <summary>0 = greedy.</summary>
    public float Temperature { get; set; }
    /// <summary>Keep the k likeliest; 0 = all.</summary>
    public int TopK { get; set; } = 50;
    /// <summary>Keep the smallest set of at least this probability; 1 = all.</summary>
    public float TopP { get; set; } = 1;
    /// <summary>Seed.</summary>
    public int Seed { get; set; } = 42;
}

/// <summary>Draws tokens: temperature, then top-k, then top-p, in transformers' order. Greedy takes the first of equal logits.</summary>
public sealed class Sampler(SamplingOptions options)
{
    private readonly PhiloxRandom _random = new((ulong)(uint)options.Seed, 0x34000000);
    private int[] _order = [];
    private float[] _keys = [];

    /// <summary>The next token from logits [V].</summary>
    public int Next(ReadOnlySpan<float> logits)
    {
        if (options.Temperature <= 0)
        {
            int best = 0;
            for (int i = 1; i < logits.Length; i++)
                if (logits[i] > logits[best]) best = i;
            return best;
        }
        if (_order.Length != logits.Length) (_order, _keys) = (new int[logits.Length], new float[logits.Length]);
        for (int i = 0; i < logits.Length; i++) (_order[i], _keys[i]) = (i, -logits[i] / options.Temperature);
        Array.Sort(_keys, _order);
        int keep = options.TopK > 0 ? Math.Min(options.TopK, logits.Length) : logits.Length;
        double sum = 0, kept = 0;
        for (int i = 0; i < keep; i++) sum += Math.Exp(_keys[0] - _keys[i]);
        int n = 0;
        while (n < keep && (n == 0 || kept < options.TopP * sum)) kept += Math.Exp(_keys[0] - _keys[n++]);
        double at = _random.NextFloat() * kept;
        for (int i = 0; i < n; i++)
        {
            at -= Math.Exp(_keys[0] - _keys[i]);
            if (at < 0) return _order[i];
        }
        return _order[n - 1];
    }
}
