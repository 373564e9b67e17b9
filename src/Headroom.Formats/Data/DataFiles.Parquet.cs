using Headroom.Core;
using Parquet;
using Parquet.Schema;

namespace Headroom.Formats.Data;

public static partial class DataFiles
{
    private static IEnumerable<DataRow> ReadParquet(string path, DataFileOptions options)
    {
        Guard(path, () => { ParquetFooter.Check(path); return 0; });
        var reader = Wait(path, () => ParquetReader.CreateAsync(path));
        try
        {
            var fields = Guard(path, () => reader.Schema.GetDataFields());
            DataField? Find(string name) => Array.Find(fields, f => f.Name == name);
            string names = string.Join(", ", fields.Select(f => f.Name));
            DataField Need(string name) => Find(name) ?? throw new HeadroomException($"{path}: no column '{name}'", $"set text_field and label_field; columns here: {names}");
            DataField text = Need(options.TextField), label = Need(options.LabelField);
            DataField? tier = Find(options.TierField), id = Find(options.IdField);
            long row = 0, most = Math.Min(int.MaxValue, new FileInfo(path).Length * 64);
            for (int g = 0, groups = Guard(path, () => reader.RowGroupCount); g < groups; g++)
            {
                int number = g;
                using var group = Guard(path, () => reader.OpenRowGroupReader(number));
                // A row takes bits at least somewhere; more of them than that is a damaged footer, and memory for them would be asked for below.
                if (group.RowCount < 0 || group.RowCount > most) throw new HeadroomException($"{path}: not readable as Parquet (it claims {group.RowCount} rows)", "fetch or write the file again");
                int n = (int)group.RowCount;
                var t = Column(path, group, text, n);
                var l = Column(path, group, label, n);
                var r = tier == null ? null : Column(path, group, tier, n);
                var k = id == null ? null : Column(path, group, id, n);
                for (int i = 0; i < n; i++)
                {
                    row++;
                    if (t[i] == null || l[i] == null)
                        throw new HeadroomException($"{path}, row {row}: no {(t[i] == null ? "text" : "label")}", "fill it in or drop the row");
                    yield return new(t[i]!, l[i]!, r?[i], k?[i]);
                }
            }
        }
        finally { Wait(path, async () => { await reader.DisposeAsync().ConfigureAwait(false); return 0; }); }
    }

    private static string?[] Column(string path, ParquetRowGroupReader group, DataField field, int n)
    {
        if (field.IsArray || field.MaxRepetitionLevel > 0) throw Unsupported(path, field);
        var type = Nullable.GetUnderlyingType(field.ClrType) ?? field.ClrType;
        if (type == typeof(string) || type == typeof(ReadOnlyMemory<char>)) // which of the two depends on how the column was written
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
        new($"{path}: column '{field.Name}' has type {field.ClrType.Name}{(field.IsArray ? "[]" : "")}", "use a column of strings, numbers or booleans");

    private static void WaitAll(string path, Func<Task> work) => Wait(path, async () => { await work().ConfigureAwait(false); return 0; });

    /// <summary>How long one step of the library may take (a row group of a column takes seconds at most): damaged pages can make it loop.</summary>
    internal static TimeSpan Patience { get; set; } = TimeSpan.FromMinutes(2);

    private static T Wait<T>(string path, Func<Task<T>> work) => Guard(path, () =>
    {
        var task = Task.Run(work);
        if (Task.WhenAny(task, Task.Delay(Patience)).GetAwaiter().GetResult() != task)
            throw new HeadroomException($"{path}: reading it takes too long, so it is damaged", "fetch or write the file again");
        return task.GetAwaiter().GetResult();
    });

    private static T Guard<T>(string path, Func<T> work)
    {
        try { return work(); }
        catch (Exception e) when (e is not HeadroomException) // an OutOfMemoryException too: only a number of the file can ask for that much
        {
            throw new HeadroomException($"{path}: not readable as Parquet ({e.Message.Split('\n')[0]})", "fetch or write the file again", inner: e);
        }
    }
}
