using Headroom.Core;
using Headroom.Formats.HuggingFace;

namespace Headroom.Inference;

/// <summary>How the next token is chosen (transformers <c>GenerationConfig</c>).</summary>
public sealed record SamplingOptions
{
    /// <summary>0 = greedy.</summary>
    public float Temperature { get; set; }
    /// <summary>Keep the k likeliest; 0 = all.</summary>
    public int TopK { get; set; } = 50;
    /// <summary>Keep the smallest set of at least this probability; 1 = all.</summary>
    public float TopP { get; set; } = 1;
    /// <summary>Drop tokens less likely than this share of the likeliest; 0 = none.</summary>
    public float MinP { get; set; }
    /// <summary>
    /// Divides the positive and multiplies the negative logits of tokens that stand in the prompt or the text so far; 1
    /// = off.
    /// </summary>
    public float RepetitionPenalty { get; set; } = 1;
    /// <summary>Seed.</summary>
    public int Seed { get; set; } = 42;

    /// <summary>What a model's generation_config.json asks for; greedy unless do_sample is set.</summary>
    public static SamplingOptions Take(GenerationConfig c)
    {
        var d = new SamplingOptions();
        return d with
        {
            Temperature = c.DoSample ? c.Temperature ?? 1 : 0,
            TopK = c.TopK ?? d.TopK,
            TopP = c.TopP ?? d.TopP,
            MinP = c.MinP ?? d.MinP,
            RepetitionPenalty = c.RepetitionPenalty ?? d.RepetitionPenalty,
        };
    }

    /// <summary>Throws <see cref="HeadroomException"/> when a value is out of range.</summary>
    public void Check()
    {
        void Need(bool ok, string what)
        {
            if (!ok) throw new HeadroomException(what, "Give another value.");
        }
        Need(
            Temperature >= 0 && float.IsFinite(Temperature),
            $"temperature is {Temperature}; it must be 0 (greedy) or positive.");
        Need(TopK >= 0, $"top_k is {TopK}; it must be 0 (all) or positive.");
        Need(TopP is > 0 and <= 1, $"top_p is {TopP}; it must be in (0, 1].");
        Need(MinP is >= 0 and <= 1, $"min_p is {MinP}; it must be in [0, 1].");
        Need(
            RepetitionPenalty > 0 && float.IsFinite(RepetitionPenalty),
            $"repetition_penalty is {RepetitionPenalty}; it must be positive.");
    }
}

/// <summary>
/// Draws tokens in transformers' order (<c>generation/utils.py</c>, _get_logits_processor; <c>logits_process.py</c>):
/// repetition penalty, then temperature, top_k (ties with the k-th stay), top_p over the softmax of what is left,
/// min_p, softmax, one draw. Greedy takes the first of equal logits.
/// </summary>
internal sealed class Sampler
{
    // any lower one is greedy too, and a logit over it may be more than a float holds
    private const float LeastTemperature = 1e-6f;
    private readonly SamplingOptions _options;
    private readonly PhiloxRandom _random;
    private readonly bool[] _seen;
    private readonly int[] _order;
    private readonly float[] _keys;

    /// <summary>For a vocabulary of <paramref name="vocab"/> tokens.</summary>
    public Sampler(SamplingOptions options, int vocab)
    {
        options.Check();
        _options = options;
        _random = new PhiloxRandom((ulong)(uint)options.Seed, 0x34000000);
        _seen = options.RepetitionPenalty == 1 ? [] : new bool[vocab];
        (_order, _keys) = options.Temperature > 0 ? (new int[vocab], new float[vocab]) : ([], []);
    }

    /// <summary>Tokens of the prompt, for the repetition penalty.</summary>
    public void See(ReadOnlySpan<int> ids)
    {
        if (_seen.Length > 0)
            foreach (int id in ids) _seen[id] = true;
    }

    /// <summary>
    /// The next token from logits [V], which are changed in place by the repetition penalty; it counts as seen.
    /// Allocates nothing.
    /// </summary>
    public int Next(Span<float> logits)
    {
        for (int i = 0; i < _seen.Length; i++)
            if (_seen[i])
                logits[i] =
                    logits[i] < 0 ? logits[i] * _options.RepetitionPenalty : logits[i] / _options.RepetitionPenalty;
        int next = _options.Temperature > 0 ? Draw(logits) : Greedy(logits);
        if (!float.IsFinite(logits[next]))
            throw new HeadroomException(
                $"The model's logits are not finite (the largest is {logits[next]}).",
                "Its weights are damaged, or 16 bits are too narrow for it: try another copy of the model, or another "
                    + "device.",
                1);
        if (_seen.Length > 0) _seen[next] = true;
        return next;
    }

    /// <summary>Index of the largest logit, the first of equals.</summary>
    public static int Greedy(ReadOnlySpan<float> logits)
    {
        int best = 0;
        for (int i = 1; i < logits.Length; i++)
            if (logits[i] > logits[best]) best = i;
        return best;
    }

    private int Draw(ReadOnlySpan<float> logits)
    {
        int keep = Candidates(logits);
        if (keep == 0) return logits.IndexOf(float.NaN); // no comparison with NaN holds; Next refuses it
        double sum = 0, kept = 0;
        for (int i = 0; i < keep; i++) sum += Math.Exp(_keys[0] - _keys[i]);
        // A token stays while the likelier ones have less than top_p together.
        int n = 0;
        while (n < keep && (n == 0 || (kept < _options.TopP * sum && Math.Exp(_keys[0] - _keys[n]) >= _options.MinP)))
            kept += Math.Exp(_keys[0] - _keys[n++]);
        double at = _random.NextFloat() * kept;
        for (int i = 0; i < n; i++)
        {
            at -= Math.Exp(_keys[0] - _keys[i]);
            if (at < 0) return _order[i];
        }
        return _order[n - 1];
    }

    // The tokens that top_k leaves, likeliest first: ids in _order, negated logits / temperature in _keys.
    private int Candidates(ReadOnlySpan<float> logits)
    {
        int k = _options.TopK > 0 ? Math.Min(_options.TopK, logits.Length) : logits.Length, n = 0;
        float threshold = float.NegativeInfinity, temperature = Math.Max(_options.Temperature, LeastTemperature);
        if (k < logits.Length)
        {
            // The k-th largest logit: a heap of the k largest, its smallest first. Few entries move, so a vocabulary
            // costs little more than one pass.
            var heap = _keys.AsSpan(0, k);
            logits[..k].CopyTo(heap);
            for (int i = k / 2 - 1; i >= 0; i--) Sift(heap, i);
            for (int i = k; i < logits.Length; i++)
                if (logits[i] > heap[0])
                {
                    heap[0] = logits[i];
                    Sift(heap, 0);
                }
            threshold = heap[0];
        }
        for (int i = 0; i < logits.Length; i++)
            if (logits[i] >= threshold) (_order[n], _keys[n++]) = (i, -logits[i] / temperature);
        Array.Sort(_keys, _order, 0, n);
        return n;
    }

    private static void Sift(Span<float> heap, int i)
    {
        while (true)
        {
            int child = 2 * i + 1;
            if (child >= heap.Length) return;
            if (child + 1 < heap.Length && heap[child + 1] < heap[child]) child++;
            if (heap[i] <= heap[child]) return;
            (heap[i], heap[child]) = (heap[child], heap[i]);
            i = child;
        }
    }
}
