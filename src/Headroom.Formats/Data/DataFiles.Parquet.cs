using Headroom.Core;
using Parquet;
using Parquet.Schema;

namespace Headroom.Formats.Data;

internal static partial class DataFiles
{
    private static IEnumerable<DataRow> ReadParquet(string path, DataFileOptions options)
    {
        RegularFile.Check(path);
        using var file = File.OpenRead(path);
        foreach (var row in ReadParquet(file, path, options)) yield return row;
    }

    /// <summary>The rows of a Parquet file; <paramref name="path"/> is its name in messages.</summary>
    // Long: an iterator; what it opens, it has to close itself.
    internal static IEnumerable<DataRow> ReadParquet(Stream file, string path, DataFileOptions options)
    {
        var footer = Guard(path, () => ParquetFooter.Read(file, path));
        var guarded = new ParquetStream(file);
        var reader = Wait(path, () => ParquetReader.CreateAsync(guarded));
        try
        {
            var fields = Guard(path, () => reader.Schema.GetDataFields());
            string names = HeadroomException.List(fields.Select(f => f.Name));
            Source? Find(string name)
            {
                var field = Array.Find(fields, f => f.Name == name && f.Path.Length == 1)
                    ?? Array.Find(fields, f => f.Name == name);
                if (field == null) return null;
                if (fields.Count(f => f.Name == name && f.Path.Length == 1) > 1)
                    throw new HeadroomException(
                        $"{path}: several columns are named '{HeadroomException.Value(name)}'",
                        "Give each column a name of its own");
                int at = footer.Leaves.ToList().FindIndex(l => l.IsFlat && l.Path[0] == name);
                return at < 0 || field.Path.Length > 1 || field.IsArray || field.MaxRepetitionLevel > 0
                    ? throw Unsupported(path, field)
                    : new(field, at);
            }
            Source Need(string name) =>
                Find(name)
                ?? throw new HeadroomException(
                    $"{path}: no column '{HeadroomException.Value(name)}'",
                    $"Set data.text_field, data.label_field and the columns of task.template; columns here: {names}");
            Source[] texts = [.. options.Texts.Select(Need)];
            Source label = Need(options.LabelField);
            Source? tier = Find(options.TierField), id = Find(options.IdField);
            long row = 0, most = Math.Min(int.MaxValue, file.Length * 64);
            for (int g = 0; g < footer.Groups.Count; g++)
            {
                using var group = Guard(path, () => reader.OpenRowGroupReader(g));
                // A row takes bits at least somewhere; more of them than that is a damaged footer, and memory for them
                // would be asked for below.
                if (footer.Rows[g] > most) throw ParquetFooter.Bad(path, $"it claims {footer.Rows[g]} rows");
                int n = (int)footer.Rows[g];
                string?[] Read(Source s)
                {
                    var chunk = footer.Groups[g][s.Leaf];
                    long end = Guard(path, () => ParquetPages.Check(file, chunk, path));
                    guarded.Open(chunk.Start, end);
                    return Column(path, group, s.Field, n);
                }
                string?[][] t = [.. texts.Select(Read)];
                var l = Read(label);
                var r = tier == null ? null : Read(tier);
                var k = id == null ? null : Read(id);
                for (int i = 0; i < n; i++)
                {
                    row++;
                    int none = Array.FindIndex(t, c => c[i] == null);
                    if (none >= 0 || l[i] == null)
                        throw BadRow(
                            path, row,
                            $"no {(none > 0 ? $"'{HeadroomException.Value(options.Texts[none])}'" : none == 0 ? "text" : "label")}",
                            "Fill it in or drop the row");
                    yield return new(t[0][i]!, l[i]!, r?[i], k?[i])
                    {
                        More = t.Length == 1 ? null : [.. t[1..].Select(c => c[i]!)],
                    };
                }
            }
        }
        finally { Wait(path, async () => { await reader.DisposeAsync().ConfigureAwait(false); return 0; }); }
    }

    /// <summary>A column as Parquet.Net names it and its place in <see cref="ParquetFooter.Leaves"/>.</summary>
    private sealed record Source(DataField Field, int Leaf);

    private static string?[] Column(string path, ParquetRowGroupReader group, DataField field, int n)
    {
        var type = Nullable.GetUnderlyingType(field.ClrType) ?? field.ClrType;
        // which of the two depends on how the column was written
        if (type == typeof(string) || type == typeof(ReadOnlyMemory<char>))
        {
            var s = new string?[n];
            WaitAll(path, () => group.ReadAsync(field, s.AsMemory()).AsTask());
            return s;
        }
        if (type == typeof(byte[]) || type == typeof(ReadOnlyMemory<byte>))
        {
            var b = new byte[]?[n];
            WaitAll(path, () => group.ReadAsync(field, b.AsMemory()).AsTask());
            return Array.ConvertAll(b, v => v == null ? null : Text(v));
        }
        if (type == typeof(long)) return Values<long>();
        if (type == typeof(int)) return Values<int>();
        if (type == typeof(short)) return Values<short>();
        if (type == typeof(sbyte)) return Values<sbyte>();
        if (type == typeof(byte)) return Values<byte>();
        if (type == typeof(uint)) return Values<uint>();
        if (type == typeof(ulong)) return Values<ulong>();
        if (type == typeof(bool)) return Values<bool>();
        if (type == typeof(float)) return Values<float>();
        if (type == typeof(double)) return Values<double>();
        throw Unsupported(path, field);

        string?[] Values<T>() where T : struct
        {
            if (!field.IsNullable)
            {
                var plain = new T[n];
                WaitAll(path, () => group.ReadAsync<T>(field, plain.AsMemory()).AsTask());
                return Array.ConvertAll(plain, v => (string?)Text(v));
            }
            var v = new T?[n];
            WaitAll(path, () => group.ReadAsync<T>(field, v.AsMemory()).AsTask());
            return Array.ConvertAll(v, x => x.HasValue ? Text(x.Value) : null);
        }
    }

    private static HeadroomException Unsupported(string path, DataField field) =>
        new(
            $"{path}: column '{field.Name}' has type {field.ClrType.Name}{(field.IsArray ? "[]" : "")}",
            "Use a column of strings, numbers or booleans");

    private static void WaitAll(string path, Func<Task> work) => Wait(path, async () =>
        {
            await work().ConfigureAwait(false);
            return 0;
        });

    /// <summary>
    /// How long one step of the library may take (a row group of a column takes seconds at most); infinite: it works on
    /// the caller's thread.
    /// </summary>
    internal static TimeSpan Patience { get; set; } = TimeSpan.FromMinutes(2);

    private static T Wait<T>(string path, Func<Task<T>> work) => Guard(path, () =>
    {
        if (Patience == Timeout.InfiniteTimeSpan) return work().GetAwaiter().GetResult();
        var task = Task.Run(work);
        if (Task.WhenAny(task, Task.Delay(Patience)).GetAwaiter().GetResult() != task)
            throw new HeadroomException(
                $"{path}: reading it takes too long, so it is damaged", "Fetch or write the file again");
        return task.GetAwaiter().GetResult();
    });

    private static T Guard<T>(string path, Func<T> work)
    {
        try { return work(); }
        // an OutOfMemoryException too: only a number of the file can ask for that much
        catch (Exception e) when (e is not HeadroomException)
        {
            throw ParquetFooter.Bad(path, e.Message.Split('\n')[0], e);
        }
    }
}
