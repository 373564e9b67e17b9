using Headroom.Core;
using Headroom.Formats.Gguf;

namespace Headroom.Tests.Formats;

/// <summary>A GGUF file written anew with other pairs or further tensors.</summary>
internal static class GgufEdit
{
    public static void Rewrite(string from, string to, Action<Dictionary<string, object>> change,
        params GgufEntry[] more)
    {
        using var file = new GgufFile(from);
        var pairs = file.Metadata.ToDictionary(p => p.Key, p => p.Value switch
        {
            long v => (object)(uint)v,
            double v => (float)v,
            long[] v => Array.ConvertAll(v, i => (int)i),
            _ => p.Value,
        });
        change(pairs);
        var entries = file.Tensors.Values
            .Select(t => new GgufEntry(t.Name, t.Type, t.Rows == 1 ? 0 : t.Rows, t.Columns, s =>
        {
            var bytes = new byte[t.Rows * t.RowBytes];
            file.ReadRows(t.Name, 0, t.Rows, bytes);
            s.Write(bytes);
        }));
        GgufWriter.Write(to, pairs, [.. entries, .. more]);
    }

    /// <summary>A vector of float32.</summary>
    public static GgufEntry Vector(string name, int n, float value = 3) =>
        new(name, GgmlType.F32, 0, n, s => s.Write(GgufBuilder.Floats([.. Enumerable.Repeat(value, n)])));
}
