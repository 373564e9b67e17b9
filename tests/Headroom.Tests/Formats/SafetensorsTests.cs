using System.Buffers.Binary;
using System.Text;
using System.Text.Json;
using CsCheck;
using Headroom.Core;
using Headroom.Formats;
using Headroom.Formats.Safetensors;

namespace Headroom.Tests.Formats;

/// <summary>
/// The reader against the test vectors of the reference implementation (huggingface/safetensors <c>tensor.rs</c>) and
/// hostile files; the writer's layout.
/// </summary>
public sealed class SafetensorsTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("headroom-safetensors").FullName;

    public void Dispose() => Directory.Delete(_folder, true);

    private const string Good = """{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}""";

    private string Save(byte[] bytes)
    {
        string path = Path.Combine(_folder, Guid.NewGuid().ToString("N") + ".safetensors");
        File.WriteAllBytes(path, bytes);
        return path;
    }

    private static byte[] Bytes(ulong n, ReadOnlySpan<byte> rest)
    {
        byte[] file = new byte[8 + rest.Length];
        BinaryPrimitives.WriteUInt64LittleEndian(file, n);
        rest.CopyTo(file.AsSpan(8));
        return file;
    }

    private string Save(string header, int data) =>
        Save(Bytes((ulong)Encoding.UTF8.GetByteCount(header), [.. Encoding.UTF8.GetBytes(header), .. new byte[data]]));

    private void Refuses(string path, string why)
    {
        var e = Assert.Throws<HeadroomException>(() => SafetensorsFile.Open(path).Dispose());
        Assert.Equal(2, e.ExitCode);
        Assert.Contains(why, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
        Assert.NotEmpty(e.ToDo);
        File.Delete(path); // and nothing still holds the file
    }

    [Fact]
    public void ReadsTheFirstVector()
    {
        Assert.Equal(60, Encoding.UTF8.GetByteCount(Good));
        using var file = SafetensorsFile.Open(Save(Good, 16));
        var t = Assert.Single(file.Tensors).Value;
        Assert.Equal(("test", "I32", 0L, 16L, 4L), (t.Name, t.DType, t.Begin, t.End, t.Count));
        Assert.Equal([2L, 2L], t.Shape);
        Assert.Equal(new byte[16], file.Bytes("test").ToArray());
        file.Dispose(); // twice is allowed
    }

    [Theory]
    [InlineData("{}\r \t\n", 0)]
    [InlineData(" {} ", 0)]
    [InlineData("""{"t":{"dtype":"F32","shape":[2,0],"data_offsets":[0,0]}}""", 0)]
    [InlineData("""{"t":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}""", 4)]
    [InlineData(
        """{"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""",
        8
    )]
    [InlineData(
        """{"a":{"data_offsets":[0,4],"shape":[1],"dtype":"F32"},"e":{"dtype":"F32","shape":[0],"data_offsets":[4,4]}}""",
        4
    )]
    [InlineData("""{"t":{"dtype":"U8","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}}""", 0)] // judged factor by factor: the product stays 0
    [InlineData("""{"t":{"dtype":"U8","shape":[0,18446744073709551614],"data_offsets":[0,0]}}""", 0)]
    [InlineData("""{"t":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}""", 1)]
    [InlineData("""{"../../etc/passwd\u0000":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}""", 1)]
    [InlineData(
        """{"__metadata__":{"format":"pt","a b":"{}"},"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}""",
        1
    )]
    public void Accepts(string header, int data) => SafetensorsFile.Open(Save(header, data)).Dispose();

    [Theory]
    [InlineData(17, "MetadataIncompleteBuffer")] // a payload after the last tensor
    [InlineData(14, "MetadataIncompleteBuffer")]
    [InlineData(0, "MetadataIncompleteBuffer")]
    public void RefusesTheWrongLength(int data, string why) => Refuses(Save(Good, data), why);

    [Fact]
    public void RefusesBrokenHeaders()
    {
        Refuses(Save([]), "HeaderTooSmall");
        Refuses(Save(new byte[4]), "HeaderTooSmall");
        Refuses(Save(Bytes(1, [])), "InvalidHeaderLength");
        Refuses(Save(Bytes(ulong.MaxValue, [])), "HeaderTooLarge");
        Refuses(Save(Bytes(ulong.MaxValue - 7, new byte[16])), "HeaderTooLarge"); // 8 + N wraps around
        Refuses(Save(Bytes(100_000_001, [])), "HeaderTooLarge");
        // an allocation attack: a large N, a tiny file
        Refuses(Save(Bytes(100_000_000, "{}"u8)), "InvalidHeaderLength");
        Refuses(Save(Bytes(1, [0xFF])), "InvalidHeader");
        Refuses(Save(Bytes(1, "{"u8)), "InvalidHeaderDeserialization");
        Refuses(Save(Bytes(0, [])), "InvalidHeaderDeserialization");
        // the length is wrong by a constant
        byte[] shifted = Bytes(60 + 1000, [.. Encoding.UTF8.GetBytes(Good), .. new byte[2000]]);
        Refuses(Save(shifted), "InvalidHeaderDeserialization");
        Refuses(Path.Combine(_folder, "missing.safetensors"), "There is no file");
    }

    [Theory]
    [InlineData("[]", 0)]
    [InlineData("null", 0)]
    [InlineData("{} x", 0)]
    [InlineData("{}{}", 0)]
    [InlineData("""{"t":1}""", 0)]
    [InlineData("""{"t":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}""", 4)]
    [InlineData("""{"t":{"dtype":null,"shape":[1],"data_offsets":[0,4]}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","shape":1,"data_offsets":[0,4]}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","shape":[1],"data_offsets":[4]}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","shape":[1]}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":1}}""", 4)]
    [InlineData("""{"t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 4)]
    [InlineData(
        """{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""",
        4
    )]
    [InlineData(
        """{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\u0074":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""",
        8
    )]
    [InlineData("""{"t":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}""", 4)]
    [InlineData("""{"__metadata__":{"n":1}}""", 0)]
    [InlineData("""{"__metadata__":"pt"}""", 0)]
    [InlineData("""{"__metadata__":{"a":"1","a":"2"}}""", 0)]
    [InlineData("""{"__metadata__":{},"__metadata__":{}}""", 0)]
    [InlineData("""{"\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 4)]
    public void RefusesWrongJson(string header, int data) =>
        Refuses(Save(header, data), "InvalidHeaderDeserialization");

    [Theory]
    [InlineData("""{"t":{"dtype":"I32","shape":[2,2],"data_offsets":[0,4]}}""", 4, "TensorInvalidInfo")]
    [InlineData("""{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}}""", 8, "TensorInvalidInfo")]
    [InlineData(
        """{"t":{"dtype":"I32","shape":[2,18446744073709551614],"data_offsets":[0,16]}}""",
        16,
        "ValidationOverflow"
    )]
    [InlineData(
        """{"t":{"dtype":"I32","shape":[2,9223372036854775807],"data_offsets":[0,16]}}""",
        16,
        "ValidationOverflow"
    )]
    [InlineData(
        """{"t":{"dtype":"U8","shape":[4611686018427387904,4,0],"data_offsets":[0,0]}}""",
        0,
        "ValidationOverflow"
    )]
    [InlineData("""{"t":{"dtype":"I32","shape":[1],"data_offsets":[4,8]}}""", 8, "InvalidOffset")]
    [InlineData("""{"t":{"dtype":"I32","shape":[1],"data_offsets":[4,0]}}""", 4, "InvalidOffset")]
    [InlineData(
        """{"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}}""",
        12,
        "InvalidOffset"
    )]
    [InlineData(
        """{"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}""",
        4,
        "InvalidOffset"
    )]
    [InlineData("""{"a":{"dtype":"I32","shape":[1],"data_offsets":[18446744073709551612,0]}}""", 4, "InvalidOffset")]
    [InlineData("""{"a":{"dtype":"I32","shape":[9],"data_offsets":[4,40]}}""", 4, "InvalidOffset")] // offsets are checked before sizes
    [InlineData("""{"t":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}""", 2, "MisalignedSlice")]
    [InlineData("""{"t":{"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,2]}}""", 2, "MisalignedSlice")]
    public void RefusesWrongSizes(string header, int data, string why) => Refuses(Save(header, data), why);

    [Theory]
    [InlineData(10)]
    [InlineData(100_000)]
    public void RefusesManyOverlappingEntries(int count)
    {
        var header = new StringBuilder("{");
        for (int i = 0; i < count; i++)
            header
                .Append(i == 0 ? "" : ",")
                .Append($"\"t{i}\":{{\"dtype\":\"I32\",\"shape\":[4],\"data_offsets\":[0,16]}}");
        Refuses(Save(header.Append('}').ToString(), 16), "InvalidOffset");
    }

    [Fact]
    public void DamagedFilesNeverCrash()
    {
        byte[] good = Bytes(60, [.. Encoding.UTF8.GetBytes(Good), .. new byte[16]]);
        Gen.Select(Gen.Int[0, good.Length - 1], Gen.Byte, Gen.Int[0, good.Length]).Sample((at, value, length) =>
        {
            byte[] bytes = good[..length];
            if (at < length) bytes[at] = value;
            string path = Save(bytes);
            try
            {
                SafetensorsFile.Open(path).Dispose();
            }
            catch (HeadroomException)
            {
            }
            File.Delete(path);
        }, iter: 2000, threads: 1);
    }

    [Fact]
    public void ReadsEveryFloatType()
    {
        string header =
            """{"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},"c":{"dtype":"F16","shape":[1],"data_offsets":[12,14]},"d":{"dtype":"BF16","shape":[1],"data_offsets":[14,16]},"e":{"dtype":"I64","shape":[1],"data_offsets":[16,24]}}""";
        byte[] data =
        [
            .. BitConverter.GetBytes(-1.5),
            .. BitConverter.GetBytes(float.NaN),
            .. BitConverter.GetBytes((Half)0.25f),
            0x80,
            0x3F,
            .. BitConverter.GetBytes(-7L),
        ];
        using var file = SafetensorsFile.Open(
            Save(Bytes((ulong)header.Length, [.. Encoding.UTF8.GetBytes(header), .. data])));
        Assert.Equal([-1.5f], file.ReadF32("a"));
        Assert.Equal([float.NaN], file.ReadF32("b"));
        Assert.Equal([0.25f], file.ReadF32("c"));
        Assert.Equal([1f], file.ReadF32("d"));
        Assert.Equal([-7L], file.ReadI64("e"));
        Assert.Throws<HeadroomException>(() => file.ReadF32("e"));
        Assert.Throws<HeadroomException>(() => file.ReadF32("missing"));
        Assert.Throws<HeadroomException>(() => file.ReadI64("a"));
    }

    [Fact]
    public void WritesTheReferenceLayoutAndReadsItBack()
    {
        string path = Path.Combine(_folder, "out.safetensors");
        (string, string, long[], byte[])[] tensors =
        [
            ("z", "U8", [3], [1, 2, 3]),
            ("b.weight", "F32", [2, 1], [.. BitConverter.GetBytes(1f), .. BitConverter.GetBytes(-2f)]),
            ("a.weight", "F32", [], BitConverter.GetBytes(0.5f)), ("half", "F16", [2], [0, 1, 2, 3]),
            ("wide", "I64", [1], BitConverter.GetBytes(9L))];
        SafetensorsWriter.Write(
            path, tensors, new Dictionary<string, string> { ["base_sha256"] = "ab", ["format"] = "ignored" });
        byte[] bytes = File.ReadAllBytes(path);
        long n = BitConverter.ToInt64(bytes);
        Assert.Equal(0, n % 8); // the data starts 8-byte aligned
        string header = Encoding.UTF8.GetString(bytes, 8, (int)n);
        Assert.StartsWith(
            """{"__metadata__":{"format":"pt","base_sha256":"ab"},"wide":""",
            header,
            StringComparison.Ordinal
        );
        Assert.Equal(header.TrimEnd(' ').Length, header.LastIndexOf('}') + 1);
        using var file = SafetensorsFile.Open(path);
        Assert.Equal("pt", file.Metadata["format"]);
        // dtype rank descending, then name
        Assert.Equal(
            ["wide", "a.weight", "b.weight", "half", "z"], file.Tensors.Values.OrderBy(t => t.Begin).Select(t => t.Name)
        );
        foreach (var (name, dtype, shape, data) in tensors)
        {
            Assert.Equal(dtype, file.Tensors[name].DType);
            Assert.Equal(shape, file.Tensors[name].Shape);
            Assert.Equal(data, file.Bytes(name).ToArray());
        }
        // no temporary file is left
        Assert.Equal(["out.safetensors"], Directory.GetFiles(_folder).Select(Path.GetFileName));
    }

    [Fact]
    public void WritesNothingOrEverything()
    {
        string path = Path.Combine(_folder, "kept.safetensors");
        SafetensorsWriter.WriteF32(path, [("a", [1], [1f])]);
        byte[] before = File.ReadAllBytes(path);
        Assert.Throws<InvalidOperationException>(() => AtomicFile.Write(path, f =>
        {
            f.Write(new byte[100]);
            throw new InvalidOperationException("half way");
        }));
        Assert.Equal(before, File.ReadAllBytes(path));
        Assert.Equal(["kept.safetensors"], Directory.GetFiles(_folder).Select(Path.GetFileName));
        Assert.Equal(
            1,
            Assert
                .Throws<HeadroomException>(() =>
                    SafetensorsWriter.WriteF32(Path.Combine(_folder, "no", "such", "folder"), [])
                )
                .ExitCode
        );
    }

    [Fact]
    public void RoundTripsAnyTensors() =>
        Gen.Select(Gen.String[Gen.Char, 1, 12], Gen.Float.Array[0, 40]).Array[0, 6].Sample(all =>
        {
            var tensors = all.Where(t => t.Item1 != "__metadata__" && IsText(t.Item1))
                .GroupBy(t => t.Item1, StringComparer.Ordinal)
                .Select(g => (g.Key, new long[] { g.First().Item2.Length }, g.First().Item2))
                .ToList();
            string path = Path.Combine(_folder, "any.safetensors");
            SafetensorsWriter.WriteF32(path, tensors);
            using var file = SafetensorsFile.Open(path);
            Assert.Equal(tensors.Count, file.Tensors.Count);
            foreach (var (name, _, values) in tensors)
                Assert.True(values.AsSpan().SequenceEqual(file.ReadF32(name)), JsonSerializer.Serialize(name));
        }, iter: 200, threads: 1);

    private static bool IsText(string s)
    {
        try
        {
            return new UTF8Encoding(false, true).GetByteCount(s) > 0;
        }
        catch (EncoderFallbackException)
        {
            return false;
        }
    }
}
