using Headroom.Core;
using Headroom.Tests.Cpu;
using Headroom.Training.Adapters;

namespace Headroom.Tests.Adapters;

/// <summary>
/// Truncated decompositions against matrices whose singular values are known, and against the whole spectrum from a
/// Jacobi iteration.
/// </summary>
public class LowRankTests
{
    // Rows of random numbers, orthonormal to rounding (double precision).
    private static double[][] Orthonormal(int count, int n, ulong seed)
    {
        var random = new PhiloxRandom(seed);
        var rows = new double[count][];
        for (int i = 0; i < count; i++)
        {
            rows[i] = [.. Enumerable.Range(0, n).Select(_ => (double)random.NextNormal())];
            for (int pass = 0; pass < 2; pass++)
                for (int j = 0; j < i; j++)
                {
                    double dot = rows[i].Zip(rows[j], (a, b) => a * b).Sum();
                    for (int k = 0; k < n; k++) rows[i][k] -= dot * rows[j][k];
                }
            double norm = Math.Sqrt(rows[i].Sum(v => v * v));
            for (int k = 0; k < n; k++) rows[i][k] /= norm;
        }
        return rows;
    }

    private static float[] Matrix(double[] s, int m, int n)
    {
        double[][] u = Orthonormal(s.Length, m, 1), v = Orthonormal(s.Length, n, 2);
        var w = new float[m * n];
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
            {
                double sum = 0;
                for (int k = 0; k < s.Length; k++) sum += u[k][i] * s[k] * v[k][j];
                w[i * n + j] = (float)sum;
            }
        return w;
    }

    private static double Error(float[] w, SingularTriplets t, int m, int n)
    {
        double error = 0;
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
            {
                double e = w[i * n + j];
                for (int k = 0; k < t.S.Length; k++) e -= (double)t.U[k * m + i] * t.S[k] * t.V[k * n + j];
                error += e * e;
            }
        return Math.Sqrt(error);
    }

    [Theory]
    [InlineData(60, 90, 8, null)]
    [InlineData(90, 61, 5, null)]
    [InlineData(33, 33, 33, null)]
    [InlineData(60, 90, 8, 16)]
    [InlineData(90, 61, 5, 30)]
    public void KnownSpectrum(int m, int n, int r, int? iterations)
    {
        double[] s = [.. Enumerable.Range(0, Math.Min(m, n)).Select(i => 10 * Math.Pow(0.8, i))];
        float[] w = Matrix(s, m, n);
        var t = LowRank.Decompose(w, m, n, r, iterations, 7);
        for (int i = 0; i < r; i++) Assert.Equal(s[i], t.S[i], 2e-5 * s[0]);
        // Eckart and Young: nothing of this rank is nearer.
        Assert.Equal(Math.Sqrt(s.Skip(r).Sum(x => x * x)), Error(w, t, m, n), 2e-4);
        foreach (var (rows, width) in new[] { (t.U, m), (t.V, n) })
            for (int i = 0; i < r; i++)
                for (int j = 0; j <= i; j++)
                    Assert.Equal(
                        i == j ? 1 : 0,
                        Enumerable.Range(0, width).Sum(k => (double)rows[i * width + k] * rows[j * width + k]), 1e-3);
    }

    /// <summary>
    /// A random matrix has no gap anywhere: the captured energy must still be that of the true leading triplets.
    /// </summary>
    [Fact]
    public void FlatSpectrum()
    {
        const int M = 120, N = 150, R = 16;
        var random = new PhiloxRandom(3);
        float[] w = [.. Enumerable.Range(0, M * N).Select(_ => random.NextNormal())];
        double[] wd = Array.ConvertAll(w, v => (double)v), gram = Reference.TimesTransposed(wd, wd, M, M, N);
        var square = new double[M, M];
        for (int i = 0; i < M * M; i++) square[i / M, i % M] = gram[i];
        double[] values = SymmetricEigen.Decompose(square).Values;
        Assert.Equal(wd.Sum(v => v * v), values.Sum(), 1e-9 * values.Sum());
        var t = LowRank.Decompose(w, M, N, R, null, 1);
        double captured = t.S.Sum(v => (double)v * v);
        Assert.InRange(captured, values.Take(R).Sum() * (1 - 1e-4), values.Take(R).Sum() * (1 + 1e-5));
    }

    [Fact]
    public void ExactRankAndZeros()
    {
        float[] w = Matrix([5, 2, 1], 40, 30);
        var t = LowRank.Decompose(w, 40, 30, 6, null, 1);
        Assert.InRange(Error(w, t, 40, 30), 0, 1e-5);
        Assert.All(t.S[3..], v => Assert.InRange(v, 0, 1e-4));
        var zero = LowRank.Decompose(new float[40 * 30], 40, 30, 4, null, 1);
        Assert.All(zero.S, v => Assert.Equal(0, v));
        Assert.All(zero.V, v => Assert.Equal(0, v));
    }

    [Fact]
    public void SameSeedSameBits()
    {
        float[] w = Matrix([.. Enumerable.Range(0, 50).Select(i => 1.0 / (1 + i))], 70, 50);
        SingularTriplets a = LowRank.Decompose(w, 70, 50, 9, null, 5), b = LowRank.Decompose(w, 70, 50, 9, null, 5);
        Assert.Equal(a.U, b.U);
        Assert.Equal(a.S, b.S);
        Assert.Equal(a.V, b.V);
    }
}
