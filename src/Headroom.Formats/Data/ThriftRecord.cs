namespace Headroom.Formats.Data;

/// <summary>Types of the Thrift compact protocol that Parquet uses.</summary>
internal enum ThriftType : byte
{
    True = 1, Bool = 2, I8 = 3, I16 = 4, I32 = 5, I64 = 6, Double = 7, Binary = 8, List = 9, Struct = 12,
}

/// <summary>
/// A field of a structure: its type, the type of a list's elements, and what a structure (or an element) consists of.
/// </summary>
internal readonly record struct ThriftField(
    short Id, ThriftType Type, ThriftType Element = default, ThriftStruct? Of = null, bool Required = false);

/// <summary>A structure's definition.</summary>
internal sealed class ThriftStruct(params ThriftField[] fields)
{
    private readonly ThriftField?[] _byId = Enumerable.Range(0, fields.Select(f => f.Id + 1).DefaultIfEmpty(1).Max())
        .Select(i => fields.Where(f => f.Id == i).Select(f => (ThriftField?)f).FirstOrDefault()).ToArray();

    /// <summary>The required fields.</summary>
    public IReadOnlyList<short> Required { get; } = fields.Where(f => f.Required).Select(f => f.Id).ToArray();

    /// <summary>Ids below this may be known.</summary>
    public int Ids => _byId.Length;

    /// <summary>The field, or null for an id that the definition does not have.</summary>
    public ThriftField? this[int id] => (uint)id < (uint)_byId.Length ? _byId[id] : null;
}

/// <summary>Bytes that are no structure of the expected definition, or end inside of it.</summary>
internal sealed class ThriftException(string why, bool tooShort = false) : Exception(why)
{
    /// <summary>The bytes ended: more of them may mend it.</summary>
    public bool TooShort { get; } = tooShort;
}

/// <summary>
/// One structure of the compact protocol
/// (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md), read by its definition: every
/// known field has the type that it must have, lists hold no more elements than bytes are left, nothing nests deeper
/// than the definition. Parquet.Net checks none of that, goes on with whatever comes, and loops at the end of its
/// bytes.
/// </summary>
internal sealed class ThriftRecord
{
    private readonly long[] _numbers;
    private readonly object?[] _objects;
    private readonly bool[] _has;

    private ThriftRecord(int ids) => (_numbers, _objects, _has) = (new long[ids], new object?[ids], new bool[ids]);

    /// <summary>Whether the field is there.</summary>
    public bool Has(int id) => _has[id];

    /// <summary>A number or a Boolean (0, 1); null when it is not there.</summary>
    public long? Number(int id) => _has[id] ? _numbers[id] : null;

    /// <summary>A structure; null when it is not there.</summary>
    public ThriftRecord? Record(int id) => (ThriftRecord?)_objects[id];

    /// <summary>A list of structures; empty when it is not there.</summary>
    public ThriftRecord[] Records(int id) => (ThriftRecord[]?)_objects[id] ?? [];

    /// <summary>A list of numbers; empty when it is not there.</summary>
    public long[] Numbers(int id) => (long[]?)_objects[id] ?? [];

    /// <summary>Text of a binary field; null when it is not there.</summary>
    public string? Text(int id) =>
        _objects[id] is Range r ? System.Text.Encoding.UTF8.GetString(_bytes.AsSpan(r)) : null;

    /// <summary>Texts of a list of binaries.</summary>
    public string[] Texts(int id) =>
        Array.ConvertAll((Range[]?)_objects[id] ?? [], r => System.Text.Encoding.UTF8.GetString(_bytes.AsSpan(r)));

    private byte[] _bytes = [];

    /// <summary>Reads a structure from the front of <paramref name="bytes"/>.</summary>
    /// <param name="bytes">The bytes; kept for texts.</param>
    /// <param name="count">How many of them count.</param>
    /// <param name="type">The definition.</param>
    /// <param name="length">Bytes that the structure takes.</param>
    /// <exception cref="ThriftException">It is not well formed.</exception>
    public static ThriftRecord Read(byte[] bytes, int count, ThriftStruct type, out int length)
    {
        var reader = new Reader(bytes, count);
        var record = reader.Struct(type);
        length = reader.At;
        return record;
    }

    private ref struct Reader(byte[] bytes, int count)
    {
        public int At;

        public ThriftRecord Struct(ThriftStruct type)
        {
            var r = new ThriftRecord(type.Ids) { _bytes = bytes };
            int id = 0;
            for (byte head; (head = Byte()) != 0;)
            {
                id = head >> 4 == 0 ? (int)Number(short.MinValue, short.MaxValue) : id + (head >> 4);
                var found = (ThriftType)(head & 15);
                if (id is < 1 or > short.MaxValue) throw new ThriftException($"a field has number {id}");
                if (type[id] is not { } f)
                {
                    Unknown(found);
                    continue;
                }
                if (found == ThriftType.True && f.Type == ThriftType.Bool) r._numbers[id] = 1;
                else if (found != f.Type)
                    throw new ThriftException($"field {id} has type {(int)found} in place of {(int)f.Type}");
                if (r._has[id]) throw new ThriftException($"field {id} comes twice");
                r._has[id] = true;
                switch (f.Type)
                {
                    case ThriftType.Bool: break;
                    case ThriftType.Double: Skip(8); break;
                    case ThriftType.Binary: r._objects[id] = Binary(); break;
                    case ThriftType.Struct: r._objects[id] = Struct(f.Of!); break;
                    case ThriftType.List: r._objects[id] = List(f); break;
                    default: r._numbers[id] = Scalar(f.Type); break;
                }
            }
            foreach (short need in type.Required)
                if (!r._has[need]) throw new ThriftException($"field {need} is missing");
            return r;
        }

        private Array List(ThriftField f)
        {
            int n = Header(out var element);
            if (n > 0 && element != f.Element)
                throw new ThriftException(
                    $"elements of field {f.Id} have type {(int)element} in place of {(int)f.Element}");
            switch (f.Element)
            {
                case ThriftType.Struct:
                    // Grows with what was read: the count alone, with an element a byte, could ask for eight times the
                    // file.
                    var records = new List<ThriftRecord>();
                    for (int i = 0; i < n; i++) records.Add(Struct(f.Of!));
                    return records.ToArray();
                case ThriftType.Binary:
                    var parts = new List<Range>();
                    for (int i = 0; i < n; i++) parts.Add(Binary());
                    return parts.ToArray();
                default:
                    var numbers = new long[n];
                    for (int i = 0; i < n; i++) numbers[i] = Scalar(f.Element);
                    return numbers;
            }
        }

        // A field that came after this definition was written. Parquet.Net passes over numbers, texts and lists of
        // them; over a structure only when it is empty.
        private void Unknown(ThriftType type)
        {
            switch (type)
            {
                case ThriftType.True or ThriftType.Bool: break;
                case ThriftType.Double: Skip(8); break;
                case ThriftType.Binary: Binary(); break;
                case ThriftType.I8 or ThriftType.I16 or ThriftType.I32 or ThriftType.I64: Scalar(type); break;
                case ThriftType.Struct when Byte() == 0: break;
                case ThriftType.List:
                    int n = Header(out var element);
                    if (element is ThriftType.True or ThriftType.Bool or ThriftType.List) goto default;
                    for (int i = 0; i < n; i++) Unknown(element);
                    break;
                default: throw new ThriftException($"a field of type {(int)type} that is not known here");
            }
        }

        private int Header(out ThriftType element)
        {
            byte head = Byte();
            element = (ThriftType)(head & 15);
            ulong n = (ulong)head >> 4;
            if (n == 15) n = Varint();
            if (n > (ulong)(count - At))
                throw new ThriftException($"a list of {n} elements in {count - At} "
                    + $"bytes", true); // an element takes a byte at least
            return (int)n;
        }

        private long Scalar(ThriftType type) => type switch
        {
            ThriftType.I8 => (sbyte)Byte(),
            ThriftType.I16 => Number(short.MinValue, short.MaxValue),
            ThriftType.I32 => Number(int.MinValue, int.MaxValue),
            ThriftType.I64 => Number(long.MinValue, long.MaxValue),
            _ => throw new ThriftException($"type {(int)type} where a number is expected"),
        };

        private Range Binary()
        {
            ulong n = Varint();
            if (n > (ulong)(count - At)) throw new ThriftException($"a text of {n} bytes in {count - At}", true);
            At += (int)n;
            return (At - (int)n)..At;
        }

        private long Number(long least, long most)
        {
            ulong v = Varint();
            long n = (long)(v >> 1) ^ -(long)(v & 1); // zigzag
            return n >= least && n <= most
                ? n
                : throw new ThriftException($"the number {n} is too large for its field");
        }

        private ulong Varint()
        {
            ulong value = 0;
            for (int shift = 0; shift < 64; shift += 7)
            {
                byte x = Byte();
                if (shift == 63 && x > 1) break;
                value |= (ulong)(x & 127) << shift;
                if (x < 128) return value;
            }
            throw new ThriftException("a number of more than 64 bits");
        }

        private byte Byte() => At < count ? bytes[At++] : throw new ThriftException("it ends inside a structure", true);

        private void Skip(int n)
        {
            if (n > count - At) throw new ThriftException("it ends inside a structure", true);
            At += n;
        }
    }
}
