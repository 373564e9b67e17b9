using System.Runtime.InteropServices;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Formats.Safetensors;

namespace Headroom.Formats.BitsAndBytes;

/// <summary>
/// Tensors and configuration of a bitsandbytes 4-bit checkpoint, as transformers saves one
/// (<c>integrations/bitsandbytes.py</c>).
/// </summary>
internal static class BnbWriter
{
    /// <summary>
    /// The tensors of one NF4 weight [out, in]; <paramref name="read"/> copies a part of it to the host.
    /// </summary>
    /// <param name="name">Name of the weight, ….weight.</param>
    /// <param name="w">The weight, NF4 or NF4Double with blocks of 64.</param>
    /// <param name="dtype">Type that readers dequantize to.</param>
    /// <param name="read">Reads a tensor's bytes.</param>
    public static IEnumerable<SafetensorPart> Weight(
        string name, LinearWeight w, DType dtype, Action<Tensor, Span<byte>> read)
    {
        if (w.Storage is not (WeightStorage.NF4 or WeightStorage.NF4Double) || w.BlockSize != 64)
            throw new InvalidOperationException($"{name} is not NF4 in blocks of 64");
        bool nested = w.Storage == WeightStorage.NF4Double;
        float? offset = null;
        if (nested)
        {
            var one = new byte[4];
            read(w.Offset, one);
            offset = BitConverter.ToSingle(one);
        }
        yield return Stored(name, "U8", [w.Data.Bytes, 1], w.Data, read);
        yield return Stored(name + ".absmax", nested ? "U8" : "F32", [w.Absmax.Count], w.Absmax, read);
        yield return Host(name + ".quant_map", "F32", MemoryMarshal.AsBytes(Nf4.Codes.AsSpan()).ToArray(), 16);
        if (nested)
        {
            yield return Stored(name + ".nested_absmax", "F32", [w.NestedAbsmax.Count], w.NestedAbsmax, read);
            yield return Host(
                name + ".nested_quant_map", "F32", MemoryMarshal.AsBytes(Nf4.DynamicMap().AsSpan()).ToArray(), 256);
        }
        byte[] state = Encoding.UTF8.GetBytes(BnbTensor.WriteState(w.Out, w.In, dtype, offset));
        yield return Host(name + BnbTensor.StateKey + "nf4", "U8", state, state.Length);
    }

    /// <summary>
    /// config.json with quantization_config: the checkpoint's own keys stay, its quantization is replaced.
    /// </summary>
    public static string Config(string configJson, bool nested, DType dtype)
    {
        var json = (JsonObject)JsonNode.Parse(configJson)!;
        string compute = dtype switch { DType.BF16 => "bfloat16", DType.F16 => "float16", _ => "float32" };
        json["quantization_config"] = new JsonObject
        {
            ["_load_in_4bit"] = true,
            ["_load_in_8bit"] = false,
            ["bnb_4bit_compute_dtype"] = compute,
            ["bnb_4bit_quant_storage"] = "uint8",
            ["bnb_4bit_quant_type"] = "nf4",
            ["bnb_4bit_use_double_quant"] = nested,
            ["llm_int8_enable_fp32_cpu_offload"] = false,
            ["llm_int8_has_fp16_weight"] = false,
            ["llm_int8_skip_modules"] = null,
            ["llm_int8_threshold"] = 6.0,
            ["load_in_4bit"] = true,
            ["load_in_8bit"] = false,
            ["quant_method"] = "bitsandbytes",
        };
        return json.ToJsonString(
                new JsonSerializerOptions
                {
                    WriteIndented = true,
                    Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
                }
            ) + "\n";
    }

    /// <summary>A tensor that a device holds in the type it is written in, read in pieces.</summary>
    public static SafetensorPart Stored(
        string name, string dtype, long[] shape, Tensor tensor, Action<Tensor, Span<byte>> read
    ) => new(name, dtype, shape, tensor.Bytes, file =>
    {
        byte[] buffer = new byte[Math.Min(tensor.Bytes, 16 << 20)];
        for (long at = 0; at < tensor.Bytes; at += buffer.Length)
        {
            int n = (int)Math.Min(buffer.Length, tensor.Bytes - at);
            read(new Tensor(tensor.Address + (nint)at, DType.U8, new Shape(n)), buffer.AsSpan(0, n));
            file.Write(buffer, 0, n);
        }
    });

    private static SafetensorPart Host(string name, string dtype, byte[] bytes, long count) =>
        new(name, dtype, [count], bytes.Length, file => file.Write(bytes));
}
