using System.Numerics;
using System.Runtime.InteropServices;
using Headroom.Core;

namespace Headroom.Training.Adapters;

/// <summary>The largest singular triplets of a matrix: W ~ U diag(S) V^T.</summary>
/// <param name="U">[r, m], left vectors as rows.</param>
/// <param name="S">[r], falling.</param>
/// <param name="V">[r, n], right vectors as rows.</param>
internal sealed record SingularTriplets(float[] U, float[] S, float[] V);

/// <summary>
/// Truncated singular value decompositions by random projection. To convergence: block Krylov with restarts (Musco and
/// Musco, 2015); with a given number of iterations: randomized subspace iteration (Halko, Martinsson and Tropp, 2011,
/// algorithm 4.4; torch <c>_lowrank.py</c>, svd_lowrank). The same seed gives the same bits whatever the number of
/// threads.
/// </summary>
internal static class LowRank
{
    private const int Oversampling = 8, MaxRestarts = 12;
    // relative growth of the captured energy that ends the restarts: a flat spectrum, as quantization errors have,
    // gains next to nothing more
    private const double Tolerance = 1e-5;

    /// <summary>
    /// The <paramref name="r"/> largest triplets of w [m, n]; <paramref name="iterations"/> null = to convergence.
    /// </summary>
    public static SingularTriplets Decompose(ReadOnlyMemory<float> w, int m, int n, int r, int? iterations, ulong seed)
    {
        if (r < 1 || r > Math.Min(m, n))
            throw new ArgumentOutOfRangeException(nameof(r), $"{r} triplets of a [{m}, {n}] matrix");
        var random = new PhiloxRandom(seed, 0x20000000);
        int b = iterations == null ? Math.Min(r + Oversampling, Math.Min(m, n)) : r;
        var start = new float[(long)b * n];
        for (int i = 0; i < start.Length; i++) start[i] = random.NextNormal();
        if (iterations is { } count)
        {
            var q = Left(w, m, n, start, b);
            Orthonormalize(q, m, 0, random);
            for (int i = 0; i < count; i++)
            {
                var z = Right(w, m, n, q, b);
                Orthonormalize(z, n, 0, random);
                q = Left(w, m, n, z, b);
                Orthonormalize(q, m, 0, random);
            }
            return Ritz(q, Right(w, m, n, q, b), m, n, r);
        }
        // The small problem costs the cube of the basis; wide blocks get a shorter Krylov space.
        int depth = b <= 48 ? 4 : b <= 96 ? 2 : 1;
        double captured = 0;
        SingularTriplets best = null!;
        for (int restart = 0; restart < MaxRestarts; restart++)
        {
            var block = Left(w, m, n, start, b);
            float[] basis = [], image = []; // [k, m] and its product with W, [k, n]
            for (int d = 0; ; d++)
            {
                int before = basis.Length / m, rows = Math.Min(b, Math.Min(m, n) - before);
                if (rows <= 0) break;
                basis = [.. basis, .. block.AsSpan(0, rows * m)];
                Orthonormalize(basis, m, before, random);
                var last = Right(w, m, n, basis[(before * m)..], rows);
                image = [.. image, .. last];
                if (d == depth) break;
                block = Left(w, m, n, last, rows);
            }
            best = Ritz(basis, image, m, n, Math.Min(b, basis.Length / m));
            double energy = best.S.Take(r).Sum(s => (double)s * s);
            if (energy - captured <= Tolerance * energy) break;
            captured = energy;
            best.V.CopyTo(start, 0);
        }
        return new SingularTriplets(best.U[..(r * m)], best.S[..r], best.V[..(r * n)]);
    }

    // Rayleigh-Ritz: of W seen through an orthonormal basis q [k, m] of left vectors, with b = q W [k, n].
    private static SingularTriplets Ritz(float[] q, float[] b, int m, int n, int r)
    {
        int k = q.Length / m;
        var gram = new double[k, k];
        Parallel.For(0, k, i =>
        {
            for (int j = 0; j <= i; j++) gram[i, j] = Dot(b.AsSpan(i * n, n), b.AsSpan(j * n, n));
        });
        for (int i = 0; i < k; i++)
            for (int j = 0; j < i; j++) gram[j, i] = gram[i, j];
        var (values, vectors) = SymmetricEigen.Decompose(gram);
        float[] u = new float[(long)r * m], s = new float[r], v = new float[(long)r * n];
        Parallel.For(0, r, i =>
        {
            s[i] = (float)Math.Sqrt(Math.Max(0, values[i]));
            for (int j = 0; j < k; j++)
            {
                Axpy((float)vectors[j, i], q.AsSpan(j * m, m), u.AsSpan(i * m, m));
                if (s[i] > 0) Axpy((float)(vectors[j, i] / s[i]), b.AsSpan(j * n, n), v.AsSpan(i * n, n));
            }
        });
        return new SingularTriplets(u, s, v);
    }

    // [b, m] = x W^T; x [b, n].
    private static float[] Left(ReadOnlyMemory<float> w, int m, int n, float[] x, int b)
    {
        var y = new float[(long)b * m];
        Parallel.For(0, (m + 15) / 16, part =>
        {
            for (int i = part * 16; i < Math.Min(m, part * 16 + 16); i++)
            {
                var row = w.Span.Slice(i * n, n);
                for (int k = 0; k < b; k++) y[k * m + i] = (float)Dot(row, x.AsSpan(k * n, n));
            }
        });
        return y;
    }

    // [b, n] = y W; y [b, m]. By columns, each over all rows in order.
    private static float[] Right(ReadOnlyMemory<float> w, int m, int n, float[] y, int b)
    {
        const int Columns = 256; // a block of sums of up to 72 vectors stays in the second-level cache
        var x = new float[(long)b * n];
        Parallel.For(0, (n + Columns - 1) / Columns, part =>
        {
            int from = part * Columns, columns = Math.Min(Columns, n - from);
            for (int i = 0; i < m; i++)
            {
                var row = w.Span.Slice(i * n + from, columns);
                for (int k = 0; k < b; k++) Axpy(y[k * m + i], row, x.AsSpan(k * n + from, columns));
            }
        });
        return x;
    }

    // Gram-Schmidt, twice, of the rows from "first" on against all before them; a row that depends on them is replaced
    // by a random one.
    private static void Orthonormalize(float[] q, int n, int first, PhiloxRandom random)
    {
        for (int i = first; i < q.Length / n; i++)
        {
            var row = q.AsSpan(i * n, n);
            double before = Math.Sqrt(Dot(row, row));
            for (int attempt = 0; ; attempt++)
            {
                for (int pass = 0; pass < 2; pass++)
                    for (int j = 0; j < i; j++)
                    {
                        var other = q.AsSpan(j * n, n);
                        Axpy(-(float)Dot(row, other), other, row);
                    }
                double norm = Math.Sqrt(Dot(row, row));
                if (norm > 1e-5 * before)
                {
                    float inverse = (float)(1 / norm);
                    foreach (ref float v in row) v *= inverse;
                    break;
                }
                if (attempt > 8) throw new InvalidOperationException("no further direction");
                foreach (ref float v in row) v = random.NextNormal();
                before = Math.Sqrt(Dot(row, row));
            }
        }
    }

    private static double Dot(ReadOnlySpan<float> a, ReadOnlySpan<float> b)
    {
        // Float sums of 4,096 terms in vector lanes, those in double.
        double total = 0;
        for (int at = 0; at < a.Length; at += 4096)
        {
            int n = Math.Min(4096, a.Length - at);
            var x = MemoryMarshal.Cast<float, Vector<float>>(a.Slice(at, n));
            var y = MemoryMarshal.Cast<float, Vector<float>>(b.Slice(at, n));
            Vector<float> s0 = default, s1 = default;
            int i = 0;
            for (; i + 2 <= x.Length; i += 2)
            {
                s0 += x[i] * y[i];
                s1 += x[i + 1] * y[i + 1];
            }
            if (i < x.Length) s0 += x[i] * y[i];
            float sum = Vector.Sum(s0 + s1);
            for (int j = x.Length * Vector<float>.Count; j < n; j++) sum += a[at + j] * b[at + j];
            total += sum;
        }
        return total;
    }

    private static void Axpy(float s, ReadOnlySpan<float> x, Span<float> y)
    {
        var xs = MemoryMarshal.Cast<float, Vector<float>>(x);
        var ys = MemoryMarshal.Cast<float, Vector<float>>(y);
        for (int i = 0; i < ys.Length; i++) ys[i] += xs[i] * s;
        for (int i = ys.Length * Vector<float>.Count; i < y.Length; i++) y[i] += x[i] * s;
    }
}
