using System.Text.RegularExpressions;
using Headroom.Formats;

namespace Headroom.Cuda.Tests;

/// <summary>What host code and kernels share; runs everywhere.</summary>
public partial class KernelHeaderTests
{
    private static readonly string s_constants = KernelHeader.Files["constants.cuh"],
        s_structs = KernelHeader.Files["structs.cuh"];

    [Fact]
    public void NumbersAreTheHosts()
    {
        foreach (
            string line in new[]
            {
                "FLASH_TILE 64", "KIND_BF16 1", "KIND_INT8 3", "PHILOX_M0 0xD2511F53u", "TABLES_MIDDLE 272",
                "LORA_WALK_BYTES 1024", "Q6_K 14", "Q6_K_VALUES 256", "Q6_K_BYTES 210", "IQ4_NL_BYTES 18",
            }
        )
            Assert.Contains($"#define {line}\n", s_constants);
        foreach (var field in typeof(KernelConstants).GetFields())
            Assert.Contains($"#define {KernelHeader.Macro(field.Name)} ", s_constants);
        Assert.DoesNotContain("#define F32", s_constants);
    }

    /// <summary>Sizes and places as the kernels were written for them; the header asserts the sizes there.</summary>
    [Fact]
    public unsafe void StructsLieAsTheKernelsReadThem()
    {
        Assert.Equal(12, sizeof(Mask));
        Assert.Equal(80, sizeof(Part));
        Assert.Equal(6 * 80, sizeof(Parts));
        Assert.Equal(40, sizeof(ColumnsBehind));
        Assert.Equal(64, sizeof(StoredRows));
        Assert.Equal(16, sizeof(NormEntry));
        Assert.Equal(48, sizeof(AdamEntry));
        Assert.Equal(24, sizeof(AdamConstants));
        var part = new Part();
        Assert.Equal(64, (byte*)&part.Mask - (byte*)&part); // behind five addresses and six numbers, unpadded
        Assert.Contains(
            "struct Part { T* x; const float* m; const T* z; T* y; float* out; int n; int transposed; float scale; "
                + "int drop; int ldx; int tail; Mask mask; };\nstatic_assert(sizeof(Part) == 80, \"Part\");\n", s_structs);
        Assert.Contains("struct Parts { Part part[6]; };\n", s_structs);
    }

    /// <summary>
    /// Each macro and struct is the business of some kernel or of a header of kernels, none is declared there too, and
    /// no struct that is launched with is left out.
    /// </summary>
    [Fact]
    public void EachIsUsedAndDeclaredOnce()
    {
        string[] files =
        [
            .. typeof(CudaDevice).Assembly.GetManifestResourceNames()
                .Where(n => Path.GetExtension(n) is ".cu" or ".cuh")];
        string all = string.Concat(files.Select(KernelSources.Text));
        var names = Names().Matches(s_constants + s_structs).Select(m => m.Groups[1].Value)
            .Where(n => !Block().IsMatch(n));
        foreach (string name in names)
        {
            Assert.DoesNotMatch($@"(#define|struct) {name}\b", all);
            Assert.True(Regex.IsMatch(all, $@"\b{name}\b"), $"no kernel speaks of {name}");
        }
        Assert.Equal(8, Names().Count(s_structs));
    }

    [GeneratedRegex(@"(?:#define|struct) (\w+)")] private static partial Regex Names();
    [GeneratedRegex(@"_(VALUES|BYTES)$")] private static partial Regex Block();
}
