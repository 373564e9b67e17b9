namespace Headroom.Core;

/// <summary>
/// Philox4x32-10 (Salmon et al., SC 2011): a counter-based generator, so any mask can be recomputed from its key and
/// counter.
/// </summary>
internal static class Philox
{
    /// <summary>First multiplier.</summary>
    public const uint M0 = 0xD2511F53;
    /// <summary>Second multiplier.</summary>
    public const uint M1 = 0xCD9E8D57;
    /// <summary>Key increment (golden ratio).</summary>
    public const uint W0 = 0x9E3779B9;
    /// <summary>Key increment (sqrt 3 - 1).</summary>
    public const uint W1 = 0xBB67AE85;
    /// <summary>Rounds.</summary>
    public const int Rounds = 10;

    /// <summary>Ten rounds over the counter under the key.</summary>
    public static (uint X0, uint X1, uint X2, uint X3) Next(uint c0, uint c1, uint c2, uint c3, uint k0, uint k1)
    {
        for (int round = 0; round < Rounds; round++)
        {
            ulong p0 = (ulong)M0 * c0, p1 = (ulong)M1 * c2;
            (c0, c1, c2, c3) = ((uint)(p1 >> 32) ^ c1 ^ k0, (uint)p1, (uint)(p0 >> 32) ^ c3 ^ k1, (uint)p0);
            k0 += W0;
            k1 += W1;
        }
        return (c0, c1, c2, c3);
    }

    /// <summary>Uniform in [0, 1): the top 24 bits.</summary>
    public static float ToUniform(uint x) => (x >> 8) * (1f / 16777216f);
}

/// <summary>
/// A sequential generator over Philox for shuffles and initial values; its whole state is (seed, stream, position).
/// </summary>
internal sealed class PhiloxRandom(ulong seed, uint stream = 0)
{
    private (uint, uint, uint, uint) _block;
    private ulong _cached = ulong.MaxValue;

    /// <summary>Number of 32-bit words drawn so far; settable to resume.</summary>
    public ulong Position { get; set; }

    /// <summary>Next 32 random bits.</summary>
    public uint NextUInt()
    {
        ulong block = Position >> 2;
        if (block != _cached)
            _block = Philox.Next((uint)block, (uint)(block >> 32), stream, 0, (uint)seed, (uint)(seed >> 32));
        uint word = (Position & 3) switch
        {
            0 => _block.Item1,
            1 => _block.Item2,
            2 => _block.Item3,
            _ => _block.Item4,
        };
        _cached = block;
        Position++;
        return word;
    }

    /// <summary>Uniform in [0, 1).</summary>
    public float NextFloat() => Philox.ToUniform(NextUInt());

    /// <summary>Uniform integer in [0, n), by multiply-shift.</summary>
    public int Next(int n) => (int)(((ulong)NextUInt() * (uint)n) >> 32);

    /// <summary>Standard normal, Box-Muller.</summary>
    public float NextNormal()
    {
        double u1 = 1.0 - NextUInt() * (1.0 / 4294967296.0), u2 = NextUInt() * (1.0 / 4294967296.0);
        return (float)(Math.Sqrt(-2 * Math.Log(u1)) * Math.Cos(2 * Math.PI * u2));
    }

    /// <summary>Fisher-Yates shuffle.</summary>
    public void Shuffle<T>(Span<T> items)
    {
        for (int i = items.Length - 1; i > 0; i--)
        {
            int j = Next(i + 1);
            (items[i], items[j]) = (items[j], items[i]);
        }
    }
}
