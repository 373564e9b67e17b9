namespace Headroom.Training.Adapters;

/// <summary>
/// Eigenvalues and vectors of small symmetric matrices by cyclic Jacobi rotations (Golub and Van Loan, Matrix
/// Computations, 8.5).
/// </summary>
internal static class SymmetricEigen
{
    private const int MaxSweeps = 30;

    /// <summary>Eigenvalues, falling, and their vectors as columns. The matrix is destroyed.</summary>
    public static (double[] Values, double[,] Vectors) Decompose(double[,] a)
    {
        int n = a.GetLength(0);
        // Rows of a and of v are rotated, so both are walked in memory order: v holds the vectors as rows.
        var v = new double[n, n];
        for (int i = 0; i < n; i++) v[i, i] = 1;
        double norm = 0;
        foreach (double x in a) norm += x * x;
        for (int sweep = 0; sweep < MaxSweeps; sweep++)
        {
            double off = 0;
            for (int i = 0; i < n; i++)
                for (int j = 0; j < i; j++) off += a[i, j] * a[i, j];
            if (off <= 1e-28 * norm) break;
            for (int p = 0; p < n - 1; p++)
                for (int q = p + 1; q < n; q++)
                {
                    double apq = a[p, q];
                    if (apq * apq <= 1e-32 * norm / ((double)n * n)) continue;
                    double theta = (a[q, q] - a[p, p]) / (2 * apq);
                    double t = (theta >= 0 ? 1 : -1) / (Math.Abs(theta) + Math.Sqrt(theta * theta + 1)),
                        c = 1 / Math.Sqrt(t * t + 1),
                        s = t * c;
                    for (int k = 0; k < n; k++)
                    {
                        (double x, double y) = (a[p, k], a[q, k]);
                        a[p, k] = c * x - s * y;
                        a[q, k] = s * x + c * y;
                        (x, y) = (v[p, k], v[q, k]);
                        v[p, k] = c * x - s * y;
                        v[q, k] = s * x + c * y;
                    }
                    for (int k = 0; k < n; k++)
                    {
                        (double x, double y) = (a[k, p], a[k, q]);
                        a[k, p] = c * x - s * y;
                        a[k, q] = s * x + c * y;
                    }
                }
        }
        int[] order = [.. Enumerable.Range(0, n).OrderByDescending(i => a[i, i])];
        var vectors = new double[n, n];
        for (int i = 0; i < n; i++)
            for (int k = 0; k < n; k++) vectors[k, i] = v[order[i], k];
        return ([.. order.Select(i => a[i, i])], vectors);
    }
}
