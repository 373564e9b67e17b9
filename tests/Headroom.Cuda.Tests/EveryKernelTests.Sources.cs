using System.Reflection;
using System.Reflection.Metadata;
using System.Reflection.Metadata.Ecma335;
using System.Reflection.PortableExecutable;
using System.Text.RegularExpressions;
using Headroom.Core;
using Headroom.Inference;
using Headroom.Tests.Formats;

namespace Headroom.Cuda.Tests;

// What can be said of the sources without a GPU.
public sealed partial class EveryKernelTests
{
    /// <summary>Runs everywhere: what <see cref="MicroSteps"/> trains is a model that can be planned.</summary>
    [Theory, MemberData(nameof(Types))]
    internal void EveryModelHasAPlan(DType t)
    {
        foreach (var m in Models)
            Assert.True(PlannedModel.Make(m.Config, m.Settings(t), Model.Limits, 0).Plan.ArenaBytes > 0);
    }

    /// <summary>
    /// Runs everywhere: the kernels that the sources are found to declare are all of them, each file has its theory
    /// above, and the host code can ask for each.
    /// </summary>
    [Fact]
    public void EveryKernelIsFoundAndAskedFor()
    {
        Assert.Equal(
            KernelSources.Files,
            Elements.Concat(Stored).Concat(Adapted).Concat(Attended).Concat(Dora).Order(StringComparer.Ordinal));
        HashSet<string> literals = Literals(),
            types = [.. GgmlSamples.Quantized.Select(q => q.ToString().ToLowerInvariant())];
        // Asked for as it stands, or built from a prefix: a block type's name, or numbers (the tile, how many).
        bool Asked(string name) =>
            literals.Contains(name)
            || Enumerable
                .Range(1, name.Length - 1)
                .Any(i => literals.Contains(name[..i]) && (types.Contains(name[i..]) || Numbers().IsMatch(name[i..])));
        foreach (string file in KernelSources.Files)
        {
            var kernels = KernelSources.Kernels(file);
            string[] names = [.. kernels.Select(k => k.Name).Distinct()];
            // Another count: the word itself, once for each use of a macro that has it.
            string text = KernelSources.Text(file);
            int count = text.Split('\n')
                .Where(l => !l.StartsWith("#define", StringComparison.Ordinal))
                .Sum(l => Occurrences(l, "__global__"));
            foreach (
                string define in text.Split('\n')
                    .Where(l => l.StartsWith("#define", StringComparison.Ordinal) && l.Contains("__global__"))
            )
                count +=
                    Occurrences(define, "__global__") * (Occurrences(text, define[8..(define.IndexOf('(') + 1)]) - 1);
            Assert.Equal(count, names.Length);
            Assert.True(literals.Contains(file), $"{file} is never compiled");
            Assert.All(names, n => Assert.True(Asked(n), $"{file}: nothing asks for {n}"));
        }
        var found = KernelSources.Files.SelectMany(KernelSources.Kernels).ToDictionary(k => (k.Name, k.Size));
        Assert.Contains(("lora_down64_3", 16), found.Keys);
        Assert.DoesNotContain(("lora_down64_3", 32), found.Keys);
        Assert.Contains(("expand_iq4_xs", 0), found.Keys);
        Assert.True(found[("flash_hopper_backward", 128)] is { Hopper: true, TensorCores: true });
        Assert.True(found[("flash_dkv", 64)] is { Hopper: false, TensorCores: true, Typed: true });
        Assert.True(found[("adamw", 0)] is { Typed: false, TensorCores: false });
        Assert.True(found[("cross_entropy", 0)].Typed);
        Assert.False(found[("rope_table", 0)].Typed);
        Assert.False(Asked("lora_sideways") || Asked("expand_q9_9") || Asked("nothing"));
    }

    /// <summary>The script that watches these tests one by one names each that launches kernels.</summary>
    [Fact]
    public void TheSanitizerWatchesEachTest()
    {
        string script = Path.Combine(DuelTests.Repository() ?? "", "eng", "gpu", "sanitize.sh");
        Assert.SkipUnless(File.Exists(script), "sanitize.sh is not beside this executable");
        string line = File.ReadLines(script).Single(l => l.StartsWith("methods=", StringComparison.Ordinal));
        string[] launching =
        [
            .. typeof(EveryKernelTests)
                .GetMethods(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
                .Where(m => m.IsDefined(typeof(TheoryAttribute), false) && m.Name != nameof(EveryModelHasAPlan))
                .Select(m => m.Name),
        ];
        Assert.Equal(
            launching.Order(StringComparer.Ordinal),
            line[(line.IndexOf('-') + 1)..line.IndexOf('}')].Split(' ').Order(StringComparer.Ordinal));
    }

    /// <summary>Runs everywhere: what was not launched is missed, where a device could have run it.</summary>
    [Fact]
    public void WhatWasNotLaunchedIsMissed()
    {
        Assert.Empty(Missing(DType.F32, Of(Adapted), 90, true, []));
        Assert.Equal(5, Missing(DType.F32, Of(Attended), 90, true, []).Count);
        // Row kernels; three of flash.cu and one of each Hopper file, each at two head sizes.
        Assert.Equal(5 + 3 * 2 + 2 * 2, Missing(DType.BF16, Of(Attended), 90, true, []).Count);
        Assert.Equal(5 + 3 * 2, Missing(DType.F16, Of(Attended), 80, false, []).Count);
        Assert.Equal(5, Missing(DType.F16, Of(Attended), 75, false, []).Count);
        Assert.Contains("lora.cu: lora_up3 at 32",
            Missing(
                DType.BF16, Of(Adapted), 80, false,
                [("lora.cu", DType.BF16, 16, "lora_up3"), ("lora.cu", DType.F16, 32, "lora_up3")])
        );
        // The kernels of the adapters' files are shared out over three theories, none is left out.
        Assert.Equal(
            ["lora_down32", "lora_down32_2", "lora_down32_3", "lora_down64", "lora_down64_2", "lora_down64_3"],
            Of(Adapted).Where(OfAFullCard).Select(k => k.Name).Distinct().Order(StringComparer.Ordinal));
        // Compiled for float32 a kernel that knows its type does not count; one that does not, does.
        string[] left =
        [
            .. Missing(
                DType.BF16,
                Of(Elements),
                80,
                false,
                [
                    ("elements.cu", DType.F32, 0, "add"), ("elements.cu", DType.F32, 0, "rope_table"),
                    ("norm.cu", DType.BF16, 0, "rms_norm")]
            ),
        ];
        Assert.Contains("elements.cu: add", left);
        Assert.DoesNotContain("elements.cu: rope_table", left);
        Assert.DoesNotContain("norm.cu: rms_norm", left);
    }

    private static IEnumerable<SourceKernel> Of(string[] files) => files.SelectMany(KernelSources.Kernels);

    // The string literals of the host code.
    private static HashSet<string> Literals()
    {
        using var pe = new PEReader(File.OpenRead(typeof(CudaDevice).Assembly.Location));
        var reader = pe.GetMetadataReader();
        HashSet<string> all = [];
        for (var h = MetadataTokens.UserStringHandle(1); !h.IsNil; h = reader.GetNextHandle(h))
            all.Add(reader.GetUserString(h));
        return all;
    }

    private static int Occurrences(string text, string word) =>
        (text.Length - text.Replace(word, "").Length) / word.Length;

    [GeneratedRegex(@"^\d+(_\d)?$")] private static partial Regex Numbers();
}
