namespace Headroom.Fuzz;

/// <summary>Random choices that a seed and a case number give again.</summary>
internal sealed class Dice(ulong seed, long group)
{
    private ulong _state = seed * 0x9E3779B97F4A7C15 ^ (ulong)group * 0xD1B54A32D192ED03 ^ 0x2545F4914F6CDD1D;

    // splitmix64
    private ulong Next()
    {
        ulong z = _state += 0x9E3779B97F4A7C15;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }

    /// <summary>0 to n - 1.</summary>
    public int To(int n) => (int)(Next() % (ulong)n);
    public int Between(int low, int high) => low + To(high - low + 1);
    /// <summary>True once in n times.</summary>
    public bool One(int n) => To(n) == 0;
    public bool Coin() => To(2) == 0;
    public T Pick<T>(params T[] items) => items[To(items.Length)];
    public T From<T>(IReadOnlyList<T> items) => items[To(items.Count)];
}
