using System.Runtime.InteropServices;
using System.Text.Json.Nodes;
using Headroom.Core;
using Headroom.Cpu;
using Headroom.Formats.Safetensors;

namespace Headroom.Tests.Cpu;

/// <summary>NF4 against bitsandbytes, bit for bit: codes, absmax, nested absmax, offset, dequantized values.</summary>
public unsafe class Nf4GoldenTests
{
    public static TheoryData<string> Files()
    {
        var data = new TheoryData<string>();
        string root = Path.Combine(Shared.Golden, "nf4");
        if (!Directory.Exists(root)) data.Add("nf4-f32-0-flat.safetensors");
        else foreach (string f in Directory.GetFiles(root, "nf4-*.safetensors").Order()) data.Add(Path.GetFileName(f));
        return data;
    }

    [Theory, MemberData(nameof(Files))]
    public void BitIdentical(string name)
    {
        using var golden = SafetensorsFile.Open(Shared.GoldenFile("nf4/" + name));
        bool nested = golden.Tensors.ContainsKey("nested_absmax");
        var info = golden.Tensors["input"];
        int rows = info.Shape.Length == 1 ? 1 : (int)info.Shape[0], cols = (int)info.Shape[^1];
        int n = rows * cols, blocks = LinearWeight.Blocks(n, 64);
        using var cpu = new CpuOps(2);
        var dtype = info.DType switch { "BF16" => DType.BF16, "F16" => DType.F16, _ => DType.F32 };
        Tensor Buffer(DType t, int count) =>
            new((nint)NativeMemory.AllocZeroed((nuint)(count * 4 + 64)), t, new Shape(count));
        var src = Buffer(dtype, n) with { Shape = new Shape(rows, cols) };
        golden.Bytes("input").CopyTo(new Span<byte>((void*)src.Address, (int)src.Bytes));
        var w = new LinearWeight(nested ? WeightStorage.NF4Double : WeightStorage.NF4, rows, cols, Buffer(DType.U4, n),
            Buffer(nested ? DType.U8 : DType.F32, blocks),
            nested ? Buffer(DType.F32, LinearWeight.Blocks(blocks, 256)) : default,
            nested ? Buffer(DType.F32, 1) : default
        );
        cpu.Quantize(src, w);
        Assert.Equal(golden.Bytes("packed").ToArray(), new ReadOnlySpan<byte>(w.Data.B, (n + 1) / 2).ToArray());
        if (nested)
        {
            Assert.Equal(golden.ReadF32("offset")[0], w.Offset.F[0]);
            Assert.Equal(
                golden.ReadF32("nested_absmax"),
                new ReadOnlySpan<float>(w.NestedAbsmax.F, (int)w.NestedAbsmax.Count).ToArray());
        }
        Assert.Equal(
            golden.Bytes("absmax").ToArray(), new ReadOnlySpan<byte>(w.Absmax.B, (int)w.Absmax.Bytes).ToArray());
        var back = Buffer(DType.F32, n) with { Shape = new Shape(rows, cols) };
        cpu.Dequantize(w, back);
        float[] expected = golden.ReadF32("dequant");
        for (int i = 0; i < n; i++)
        {
            float value = golden.Tensors["dequant"].DType switch
            {
                "BF16" => Bf16(back.F[i]),
                "F16" => (float)(Half)back.F[i],
                _ => back.F[i],
            };
            Assert.Equal(BitConverter.SingleToInt32Bits(expected[i]), BitConverter.SingleToInt32Bits(value));
        }
        foreach (var t in new[] { src, w.Data, w.Absmax, w.NestedAbsmax, w.Offset, back })
            NativeMemory.Free((void*)t.Address);
    }

    private static float Bf16(float x)
    {
        uint u = BitConverter.SingleToUInt32Bits(x);
        return BitConverter.UInt32BitsToSingle((u + 0x7FFF + ((u >> 16) & 1)) & 0xFFFF0000);
    }

    [Fact]
    public void DynamicMapMatchesTheTable()
    {
        string path = Path.Combine(Shared.Root, "shared", "specs", "nf4-dynamic-map.json");
        Assert.SkipUnless(File.Exists(path), "the published map is not beside this checkout");
        var bits = JsonNode.Parse(File.ReadAllText(path))!["value_bits"]!.AsArray();
        for (int i = 0; i < 256; i++)
            Assert.Equal(Convert.ToUInt32((string)bits[i]!, 16), BitConverter.SingleToUInt32Bits(Nf4Tables.Dynamic[i]));
    }
}
