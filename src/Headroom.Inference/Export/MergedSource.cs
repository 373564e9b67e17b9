using System.Numerics;
using Headroom.Core;
using Headroom.Formats.Peft;
using Headroom.Models;

namespace Headroom.Inference.Export;

/// <summary>
/// A base with an adapter merged into it, tensor by tensor: each projection as the run held it (dequantized NF4, or the
/// 16 bits that a residual base was rounded to) plus scaling * B A in float32 (PEFT <c>merge_and_unload</c>), with DoRA
/// its rows scaled to their magnitudes (<c>lora/dora.py</c>). Nothing is rounded here; whoever writes it rounds once.
/// Holds one tensor at a time.
/// </summary>
internal sealed class MergedSource : IWeightSource
{
    private readonly IWeightSource _base;
    private readonly PeftAdapter? _adapter;
    private readonly WeightStorage? _storage;
    private readonly IOps? _ops;
    private readonly LoraConfig? _lora;
    private string _cached = "";
    private float[] _values = [];

    /// <summary>Wraps a base, which the caller keeps and disposes.</summary>
    /// <param name="source">The base.</param>
    /// <param name="adapter">Its adapter, or null.</param>
    /// <param name="storage">Storage of the projections in training when it is not the file's own values: NF4,
    /// NF4Double, Int8, or BF16 and F16; null = own values.</param>
    /// <param name="ops">CPU ops; needed with <paramref name="storage"/>.</param>
    /// <exception cref="HeadroomException">A tensor of the adapter matches nothing in the base.</exception>
    public MergedSource(IWeightSource source, PeftAdapter? adapter, WeightStorage? storage, IOps? ops)
    {
        adapter = adapter?.Over(source.Config);
        (_base, _adapter, _storage, _ops) = (source, adapter, storage, ops);
        Config = source.Config;
        if (storage != null && ops == null) throw new ArgumentNullException(nameof(ops));
        if (adapter == null) return;
        _lora = adapter.Lora;
        int matched = 0;
        foreach (string name in source.Config.MatrixNames())
        {
            if (!Pair(name, out var a, out var b)) continue;
            var (rows, cols) = source.ShapeOf(name);
            if (
                a.Shape is not [_, var ins]
                || b.Shape is not [var outs, _]
                || ins != cols
                || outs != rows
                || a.Shape[0] != b.Shape[1]
            )
                throw new HeadroomException(
                    $"The adapter's pair for {name} is [{string.Join(", ", a.Shape)}] and "
                        + $"[{string.Join(", ", b.Shape)}] where the weight is [{rows}, {cols}].",
                    "It belongs to another model.");
            matched += adapter.Lora.UseDora ? 3 : 2; // a pair has its magnitude: the adapter's loader sees to that
        }
        foreach (
            string name in source
                .Config.MatrixNames()
                .Concat(source.Config.VectorNames())
                .Append(source.Config.HeadName())
                .Distinct()
        )
        {
            if (!adapter.Tensors.TryGetValue(name, out var whole)) continue;
            var (rows, cols) = ShapeOf(name);
            if (whole.Values.Length != (long)rows * cols || whole.Shape[0] != rows)
                throw new HeadroomException(
                    $"The adapter's {name} is [{string.Join(", ", whole.Shape)}] where the weight is [{rows}, {cols}].",
                    "It belongs to another model.");
            matched++;
        }
        // A tied table or head that was trained went its own way.
        if (
            source.Config.TieWordEmbeddings
            && !adapter.Lora.EnsureWeightTying
            && (adapter.Tensors.ContainsKey(Config.HeadName()) || adapter.Tensors.ContainsKey(Config.TableName()))
        )
            Config = source.Config with { TieWordEmbeddings = false };
        if (matched != adapter.Tensors.Count)
            throw new HeadroomException(
                $"{adapter.Tensors.Count - matched} tensors of the adapter match nothing in the model.",
                "It belongs to another model.");
    }

    /// <inheritdoc/>
    public ModelConfig Config { get; }
    /// <inheritdoc/>
    public string Hash => _base.Hash;
    /// <inheritdoc/>
    public IReadOnlyList<string> Unclaimed => _base.Unclaimed;
    /// <inheritdoc/>
    public IReadOnlyList<string> Notices => _base.Notices;
    /// <inheritdoc/>
    public bool Has(string hfName) => _base.Has(Source(hfName));
    /// <inheritdoc/>
    public (int Rows, int Cols) ShapeOf(string hfName) => _base.ShapeOf(Source(hfName));
    /// <inheritdoc/>
    public DType SourceDType(string hfName) => DType.F32;

    /// <inheritdoc/>
    public void ReadRows(string hfName, int firstRow, int rowCount, Span<float> destination)
    {
        var (rows, cols) = ShapeOf(hfName);
        if (
            _adapter != null
            && _adapter.Tensors.TryGetValue(Config.TieWordEmbeddings ? Source(hfName) : hfName, out var whole)
        )
        {
            whole.Values.AsSpan(firstRow * cols, rowCount * cols).CopyTo(destination);
            return;
        }
        ReadBase(hfName, firstRow, rowCount, destination);
        if (!Pair(hfName, out var a, out var b)) return;
        AddDelta(
            a.Values, b.Values, (int)a.Shape[0], _lora!.For(Module(hfName)).Scaling, firstRow, rowCount, cols,
            destination);
        if (_adapter!.Lora.UseDora)
            ScaleRows(
                _adapter.Tensors[Module(hfName) + PeftAdapter.MagnitudeSuffix].Values.AsSpan(firstRow, rowCount), cols,
                destination);
    }

    // The base as the run held it.
    private void ReadBase(string hfName, int firstRow, int rowCount, Span<float> destination)
    {
        var (rows, cols) = ShapeOf(hfName);
        if (_storage is { } storage && Config.Family.Find(hfName) is { Kind: WeightKind.Linear })
        {
            if (_cached != hfName)
            {
                // Statistics of NF4 run over the whole tensor.
                if (_values.Length < (long)rows * cols) _values = new float[checked(rows * cols)];
                _base.ReadRows(hfName, 0, rows, _values.AsSpan(0, rows * cols));
                HostWeights.AsStored(_ops!, storage, rows, cols, _values.AsSpan(0, rows * cols));
                _cached = hfName;
            }
            _values.AsSpan(firstRow * cols, rowCount * cols).CopyTo(destination);
        }
        else _base.ReadRows(Source(hfName), firstRow, rowCount, destination);
    }

    /// <summary>
    /// How much larger the parts of a merged matrix are than their sum: root mean square over rows of |w| + scaling *
    /// sum over k of |b_k| |a_k| (Euclidean norms), over that of |w + scaling * b A|. Rounding errors of a product grow
    /// by it: parts that cancel leave their errors. 1 where nothing is merged.
    /// </summary>
    /// <param name="hfName">The matrix.</param>
    /// <param name="rows">Rows looked at, all over it.</param>
    public double Cancellation(string hfName, int rows = 64)
    {
        if (!Pair(hfName, out var a, out var b)) return 1;
        var (n, cols) = ShapeOf(hfName);
        int rank = (int)a.Shape[0], count = Math.Min(n, rows);
        float scaling = _lora!.For(Module(hfName)).Scaling;
        var lengths = new double[rank];
        for (int k = 0; k < rank; k++) lengths[k] = Length(a.Values.AsSpan(k * cols, cols));
        var row = new float[cols];
        double parts = 0, sums = 0;
        for (int i = 0; i < count; i++)
        {
            int at = (int)((long)n * i / count);
            _base.ReadRows(Source(hfName), at, 1, row); // its own values are close enough, and cost no quantizing
            double part = Length(row);
            for (int k = 0; k < rank; k++) part += Math.Abs(scaling * b.Values[at * rank + k]) * lengths[k];
            AddDelta(a.Values, b.Values, rank, scaling, at, 1, cols, row);
            parts += part * part;
            sums += Math.Pow(Length(row), 2);
        }
        return sums > 0 ? Math.Sqrt(parts / sums) : 1;
    }

    private static double Length(ReadOnlySpan<float> values)
    {
        double squares = 0;
        foreach (float v in values) squares += (double)v * v;
        return Math.Sqrt(squares);
    }

    // Each row to the length that its magnitude says; a row of zeros stays one, as in training.
    private static void ScaleRows(ReadOnlySpan<float> magnitudes, int cols, Span<float> rows)
    {
        for (int row = 0; row < magnitudes.Length; row++)
        {
            var values = rows.Slice(row * cols, cols);
            double length = Length(values);
            if (length == 0) continue;
            float scale = magnitudes[row] / (float)length;
            for (int i = 0; i < cols; i++) values[i] *= scale;
        }
    }

    // The head of a tied base is its table.
    private string Source(string hfName) =>
        hfName == Config.HeadName() && _base.Config.TieWordEmbeddings ? Config.TableName() : hfName;

    private bool Pair(string hfName, out (long[] Shape, float[] Values) a, out (long[] Shape, float[] Values) b)
    {
        a = b = default;
        if (_adapter == null || !hfName.EndsWith(".weight", StringComparison.Ordinal)) return false;
        string module = Module(hfName);
        return _adapter.Tensors.TryGetValue(module + ".lora_A.weight", out a)
            & _adapter.Tensors.TryGetValue(module + ".lora_B.weight", out b);
    }

    private static string Module(string hfName) => hfName[..^".weight".Length];

    // Row by row: the sum over the rank first, then scaled and added, as PEFT rounds.
    internal static void AddDelta(
        float[] a, float[] b, int rank, float scaling, int firstRow, int rowCount, int cols, Span<float> destination)
    {
        var delta = new float[cols];
        int n = Vector<float>.Count;
        for (int row = 0; row < rowCount; row++)
        {
            Array.Clear(delta);
            for (int k = 0; k < rank; k++)
            {
                float s = b[(firstRow + row) * rank + k];
                var ak = a.AsSpan(k * cols, cols);
                int i = 0;
                for (; i + n <= cols; i += n)
                    (new Vector<float>(delta, i) + new Vector<float>(ak[i..]) * s).CopyTo(delta, i);
                for (; i < cols; i++) delta[i] += ak[i] * s;
            }
            var d = destination.Slice(row * cols, cols);
            for (int i = 0; i < cols; i++) d[i] += delta[i] * scaling;
        }
    }

    /// <summary>Does nothing: the base belongs to the caller.</summary>
    public void Dispose() { }
}
