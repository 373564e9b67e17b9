using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using Headroom.Core;
using Headroom.Formats.Safetensors;

namespace Headroom.Formats.BitsAndBytes;

/// <summary>
/// One 4-bit weight of a bitsandbytes checkpoint (<c>functional.py</c>, QuantState.as_dict): packed codes under its own
/// name, and beside them absmax, quant_map, quant_state.bitsandbytes__nf4, with nested statistics also nested_absmax
/// and nested_quant_map. Everything is taken as it lies in the file; nothing is quantized again.
/// </summary>
internal sealed class BnbTensor
{
    /// <summary>Ends the key that marks a quantized weight.</summary>
    public const string StateKey = ".quant_state.bitsandbytes__";
    private static readonly string[] Components = ["absmax", "quant_map", "nested_absmax", "nested_quant_map"];
    private readonly SafetensorsFile _codes, _absmax;
    private readonly SafetensorsFile? _nested;
    private readonly string _name;
    private readonly float[] _map; // of the nested statistics
    private float[]? _flat;

    /// <summary>
    /// Reads and checks the state of <paramref name="name"/> (…proj.weight); <paramref name="find"/> gives the file of
    /// a tensor.
    /// </summary>
    // Long: reading and checking field by field; a constructor alone can set the fields.
    public BnbTensor(string name, string stateKey, Func<string, SafetensorsFile?> find)
    {
        _name = name;
        string type = stateKey[(stateKey.LastIndexOf(StateKey, StringComparison.Ordinal) + StateKey.Length)..];
        if (type != "nf4")
            throw new HeadroomException(
                $"{name} is quantized as bitsandbytes {type}.",
                "Only nf4 can be read; use the 16-bit checkpoint, or quantize it with bnb_4bit_quant_type nf4.");
        SafetensorsFile Need(string key) => find(key) ?? throw Bad($"{key} is missing");
        int blockSize = 0;
        try
        {
            var bytes = Need(stateKey).Bytes(stateKey);
            if (bytes.Length > 1 << 16) throw new FormatException("its quant_state is too long");
            using var json = JsonDocument.Parse(Encoding.UTF8.GetString(bytes));
            var root = json.RootElement;
            if (root.GetProperty("quant_type").GetString() != "nf4")
                throw new FormatException("its quant_state is not of type nf4");
            blockSize = root.GetProperty("blocksize").GetInt32();
            var shape = root.GetProperty("shape").EnumerateArray().Select(d => d.GetInt64()).ToArray();
            if (shape.Length != 2 || shape.Any(d => d is <= 0 or > int.MaxValue))
                throw new FormatException("its quant_state's shape is no matrix");
            (Rows, Cols) = ((int)shape[0], (int)shape[1]);
            DType = root.GetProperty("dtype").GetString() switch
            {
                "bfloat16" => DType.BF16,
                "float16" => DType.F16,
                "float32" => DType.F32,
                var d => throw new FormatException($"its dtype is {d}"),
            };
            IsNested = root.TryGetProperty("nested_offset", out var offset);
            if (IsNested)
            {
                Offset = offset.GetSingle();
                if (root.GetProperty("nested_blocksize").GetInt32() != 256)
                    throw new FormatException("its nested_blocksize is not 256");
                if (root.TryGetProperty("nested_dtype", out var nd) && nd.GetString() != "float32")
                    throw new FormatException("its nested_dtype is not float32");
            }
        }
        catch (Exception e) when (Malformed.Is(e))
        {
            throw Bad(e.Message.Split('\n')[0].TrimEnd('.'));
        }
        if (blockSize != 64)
            throw new HeadroomException(
                $"{name} is quantized in blocks of {blockSize}.",
                "Only blocks of 64 can be read; quantize the 16-bit checkpoint again.");
        (_codes, _absmax) = (Need(name), Need(name + ".absmax"));
        _nested = IsNested ? Need(name + ".nested_absmax") : null;
        int blocks = LinearWeight.Blocks(Count, 64), groups = LinearWeight.Blocks(blocks, 256);
        void Size(SafetensorsFile file, string key, string? dtype, long bytes)
        {
            var t = file.Tensors[key];
            if (dtype != null && t.DType != dtype || t.End - t.Begin != bytes)
                throw Bad(
                    $"{key} is {t.DType} with {t.End - t.Begin} bytes where {dtype ?? "packed codes"} with {bytes} "
                        + $"are due"
                );
        }
        Size(_codes, name, null, (Count + 1) / 2); // whatever bnb_4bit_quant_storage says: the bytes are the same
        Size(_absmax, name + ".absmax", IsNested ? "U8" : "F32", IsNested ? blocks : blocks * 4L);
        if (_nested != null) Size(_nested, name + ".nested_absmax", "F32", groups * 4L);
        float[] Map(string key, int count)
        {
            var file = Need(key);
            Size(file, key, "F32", count * 4);
            return MemoryMarshal.Cast<byte, float>(file.Bytes(key)).ToArray();
        }
        if (!Same(Map(name + ".quant_map", 16), Nf4.Codes)) throw Bad("its quant_map is not the NF4 table");
        _map = IsNested ? Map(name + ".nested_quant_map", 256) : [];
        // Older torch versions built the map without fused multiply-adds: other last bits. The kernels know one map, so
        // such statistics are expanded.
        NeedsExpansion = IsNested && !Same(_map, Nf4.DynamicMap());
        if (
            !Finite(
                MemoryMarshal.Cast<byte, float>(
                    IsNested ? _nested!.Bytes(name + ".nested_absmax") : _absmax.Bytes(name + ".absmax"))
            ) || !float.IsFinite(Offset)
        )
            throw Bad("its statistics hold NaN or infinite values");
    }

    /// <summary>The tensors that hold the statistics and the state.</summary>
    public IEnumerable<string> Keys => Components
        .Where(c => IsNested || !c.StartsWith("nested", StringComparison.Ordinal)).Select(c => $"{_name}.{c}")
        .Append(_name + StateKey + "nf4");
    /// <summary>[out, in] of the logical weight.</summary>
    public int Rows { get; private set; }
    /// <summary>[out, in] of the logical weight.</summary>
    public int Cols { get; private set; }
    /// <summary>Type that peers dequantize to.</summary>
    public DType DType { get; private set; }
    /// <summary>Double-quantized statistics.</summary>
    public bool IsNested { get; private set; }
    /// <summary>The nested map differs from the one the kernels know.</summary>
    public bool NeedsExpansion { get; }
    private float Offset { get; set; }
    private long Count => (long)Rows * Cols;

    /// <summary>The parts as stored; nested statistics expanded to float32 when <paramref name="flat"/>.</summary>
    public QuantizedParts Parts(bool flat) => flat || !IsNested
            ? new QuantizedParts(
                _codes.Bytes(_name),
                IsNested ? MemoryMarshal.AsBytes(Flat().AsSpan()) : _absmax.Bytes(_name + ".absmax"), default, 0)
            : new QuantizedParts(
                _codes.Bytes(_name), _absmax.Bytes(_name + ".absmax"),
                MemoryMarshal.Cast<byte, float>(_nested!.Bytes(_name + ".nested_absmax")), Offset);

    /// <summary>Rows as float32: code value times absmax, one rounding each.</summary>
    public void ReadRows(int firstRow, int rowCount, Span<float> destination)
    {
        var codes = _codes.Bytes(_name);
        float[] absmax = Flat(), values = Nf4.Codes;
        long at = (long)firstRow * Cols;
        for (int i = 0; i < rowCount * Cols; i++, at++)
        {
            int pair = codes[(int)(at >> 1)];
            destination[i] = values[(at & 1) == 0 ? pair >> 4 : pair & 15] * absmax[(int)(at >> 6)];
        }
    }

    /// <summary>absmax of every block; nested: map[code] * nested_absmax + offset in two roundings.</summary>
    private float[] Flat()
    {
        if (_flat != null) return _flat;
        if (!IsNested) return _flat = MemoryMarshal.Cast<byte, float>(_absmax.Bytes(_name + ".absmax")).ToArray();
        var codes = _absmax.Bytes(_name + ".absmax");
        var nested = MemoryMarshal.Cast<byte, float>(_nested!.Bytes(_name + ".nested_absmax"));
        var flat = new float[codes.Length];
        for (int i = 0; i < flat.Length; i++)
        {
            float scaled = _map[codes[i]] * nested[i >> 8];
            flat[i] = scaled + Offset;
        }
        return _flat = flat;
    }

    /// <summary>
    /// Name of the weight that a companion key belongs to; null for keys that belong to no quantized weight.
    /// </summary>
    public static string? OwnerOf(string key)
    {
        int at = key.LastIndexOf(".weight.", StringComparison.Ordinal);
        return at < 0 ? null : key[..(at + 7)];
    }

    /// <summary>True for a component that bitsandbytes knows.</summary>
    public static bool IsComponent(string key) =>
        key.Contains(StateKey, StringComparison.Ordinal)
        || Components.Any(c => key.EndsWith(".weight." + c, StringComparison.Ordinal));

    /// <summary>
    /// The state as bitsandbytes writes it (json.dumps: separators ", " and ": ", this order); the offset is the
    /// float32 value printed as a double.
    /// </summary>
    public static string WriteState(int rows, int cols, DType dtype, float? nestedOffset)
    {
        string name = dtype switch { DType.BF16 => "bfloat16", DType.F16 => "float16", _ => "float32" };
        string state = string.Create(
            CultureInfo.InvariantCulture,
            $$"""{"quant_type": "nf4", "blocksize": 64, "dtype": "{{name}}", "shape": [{{rows}}, {{cols}}]""");
        if (nestedOffset is { } offset)
            state +=
                $", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": "
                    + $"{PythonDouble(offset)}";
        return state + "}";
    }

    /// <summary>A double as Python's repr prints it: shortest digits, exponent below 1e-4 and from 1e16 on.</summary>
    public static string PythonDouble(double value)
    {
        if (value == 0) return double.IsNegative(value) ? "-0.0" : "0.0";
        string digits = value.ToString("E16", CultureInfo.InvariantCulture);
        for (int precision = 0; precision <= 16; precision++)
            if (
                double.Parse(
                    digits = value.ToString("E" + precision, CultureInfo.InvariantCulture), CultureInfo.InvariantCulture
                ) == value
            )
                break;
        int e = digits.IndexOf('E'), exponent = int.Parse(digits[(e + 1)..], CultureInfo.InvariantCulture);
        string sign = digits[0] == '-' ? "-" : "", m = digits[sign.Length..e].Replace(".", "");
        if (exponent is < -4 or >= 16)
            return $"{sign}{m[0]}{(m.Length > 1 ? "." + m[1..] : "")}e{(exponent < 0 ? "-" : "+")}{Math.Abs(exponent):00}";
        if (exponent < 0) return $"{sign}0.{new string('0', -exponent - 1)}{m}";
        return m.Length <= exponent + 1
            ? $"{sign}{m.PadRight(exponent + 1, '0')}.0"
            : $"{sign}{m[..(exponent + 1)]}.{m[(exponent + 1)..]}";
    }

    private HeadroomException Bad(string why) =>
        new(
            $"{_name} is no sound bitsandbytes weight: {why}.",
            "The checkpoint is damaged or incomplete; download it again.");

    private static bool Same(ReadOnlySpan<float> a, ReadOnlySpan<float> b) =>
        MemoryMarshal.AsBytes(a).SequenceEqual(MemoryMarshal.AsBytes(b));

    private static bool Finite(ReadOnlySpan<float> values)
    {
        foreach (float v in values)
            if (!float.IsFinite(v)) return false;
        return true;
    }
}
