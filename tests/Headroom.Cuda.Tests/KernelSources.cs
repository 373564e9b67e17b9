using System.Text.RegularExpressions;
using Headroom.Core;

namespace Headroom.Cuda.Tests;

/// <summary>A kernel as its source declares it.</summary>
/// <param name="File">The .cu file.</param>
/// <param name="Name">Its name in the cubin.</param>
/// <param name="Size">The RANK or HEAD it is compiled for, 0 where the file knows neither.</param>
/// <param name="Typed">Its text names the activation type.</param>
/// <param name="TensorCores">Its file multiplies on tensor cores, whose operands have 16 bits.</param>
/// <param name="Hopper">It is compiled for sm_90a only.</param>
internal sealed record SourceKernel(string File, string Name, int Size, bool Typed, bool TensorCores, bool Hopper)
{
    /// <summary>Why no device of this kind runs it in this type, or null.</summary>
    public string? Unable(DType type, int capability, bool hopper) =>
        TensorCores && type == DType.F32 ? "tensor cores, and so its file, take 16-bit types only"
        : TensorCores && capability < 80 ? "mma.m16n8k16 needs sm_80"
        : Hopper && !hopper ? "compiled for sm_90a only" : null;

    public override string ToString() => $"{File}: {Name}{(Size > 0 ? $" at {Size}" : "")}";
}

/// <summary>
/// The kernels of the embedded sources: declared as they stand, or by a macro whose body declares some.
/// </summary>
internal static partial class KernelSources
{
    // The one condition on a size that a kernel may stand under.
    private static readonly string RankIsTheGroups =
        $"#if RANK == {KernelHeader.Macro(nameof(KernelConstants.LoraGroupRank))}";

    /// <summary>What files are compiled for: RANK of the fused adapters, HEAD of flash attention.</summary>
    private static readonly int[] Ranks = [16, 32, 64], Heads = [64, 128];

    public static IReadOnlyList<string> Files { get; } =
    [
        .. typeof(CudaDevice)
            .Assembly.GetManifestResourceNames()
            .Where(n => n.EndsWith(".cu", StringComparison.Ordinal))
            .Order(StringComparer.Ordinal),
    ];

    /// <summary>An embedded source without comments, continued lines joined.</summary>
    public static string Text(string file)
    {
        using var reader = new StreamReader(typeof(CudaDevice).Assembly.GetManifestResourceStream(file)!);
        return Comment().Replace(reader.ReadToEnd().Replace("\r", ""), "").Replace("\\\n", " ");
    }

    public static List<SourceKernel> Kernels(string file)
    {
        string text = Text(file),
            whole = text + string.Concat(Include().Matches(text).Select(m => Text(m.Groups[1].Value)));
        int[] sizes = RankWord().IsMatch(whole) ? Ranks : HeadWord().IsMatch(whole) ? Heads : [0];
        bool tensorCores = Mma().IsMatch(whole);
        var (lines, conditions) = Expand(text);
        var kernels = new List<SourceKernel>();
        string all = string.Join('\n', lines);
        foreach (Match m in Declaration().Matches(all))
        {
            string own = all[m.Index..End(all, m.Index)], name = m.Groups[1].Value;
            string[] under = conditions[all.AsSpan(0, m.Index).Count('\n')];
            bool hopper = under.Any(c => c.Contains("__CUDA_ARCH_FEAT_SM90_ALL"));
            int only = 0;
            foreach (string c in under.Where(c => !c.Contains("__CUDA_ARCH_FEAT_SM90_ALL")))
                only = c.Trim() == RankIsTheGroups ? KernelConstants.LoraGroupRank
                    : throw new InvalidOperationException(
                        $"{file}: {name} stands under a condition this test does not know: {c}");
            foreach (int size in sizes)
                if (only == 0 || size == only)
                    kernels.Add(new SourceKernel(file, name, size, Type().IsMatch(own), tensorCores, hopper));
        }
        return kernels;
    }

    // The lines with macros that declare kernels replaced by what they stand for, and the conditions each stands under.
    private static (List<string> Lines, List<string[]> Conditions) Expand(string text)
    {
        var macros = new Dictionary<string, (string[] Parameters, string Body)>();
        var open = new Stack<string>();
        List<string> lines = [];
        List<string[]> conditions = [];
        foreach (string line in text.Split('\n'))
        {
            string kept = line;
            if (line.StartsWith("#if", StringComparison.Ordinal)) open.Push(line);
            else if (line.StartsWith("#else", StringComparison.Ordinal)) open.Push($"not {open.Pop()}");
            else if (line.StartsWith("#endif", StringComparison.Ordinal)) open.Pop();
            if (Macro().Match(line) is { Success: true } d && d.Groups[3].Value.Contains("__global__"))
                macros[d.Groups[1].Value] = (Split(d.Groups[2].Value), d.Groups[3].Value);
            else if (Use().Match(line) is { Success: true } u && macros.TryGetValue(u.Groups[1].Value, out var macro))
            {
                string[] values = Split(u.Groups[2].Value);
                kept = macro.Body;
                for (int i = 0; i < values.Length; i++)
                    kept = Regex.Replace(kept, $@"(\s*##\s*)?\b{macro.Parameters[i]}\b(\s*##\s*)?", values[i]);
            }
            lines.Add(kept.StartsWith('#') ? "" : kept);
            conditions.Add([.. open]);
        }
        return (lines, conditions);
    }

    private static string[] Split(string list) => list.Split(',', StringSplitOptions.TrimEntries);

    // Behind the closing brace of the body that begins after "at".
    private static int End(string text, int at)
    {
        int depth = 0;
        for (int i = text.IndexOf('{', at); i < text.Length; i++)
        {
            if (text[i] == '{') depth++;
            if (text[i] == '}' && --depth == 0) return i + 1;
        }
        return text.Length;
    }

    [GeneratedRegex(@"//[^\n]*")] private static partial Regex Comment();
    [GeneratedRegex("#include \"([^\"]+)\"")] private static partial Regex Include();
    [GeneratedRegex(@"\bRANK\b")] private static partial Regex RankWord();
    [GeneratedRegex(@"\bHEAD\b")] private static partial Regex HeadWord();
    [GeneratedRegex(@"\bT\b")] private static partial Regex Type();
    [GeneratedRegex(@"\bmma(\.sync|_async)")] private static partial Regex Mma();

    [GeneratedRegex(@"extern ""C"" __global__ void (?:__launch_bounds__\([^()]*\) )?(\w+)\(")]
    private static partial Regex Declaration();
    [GeneratedRegex(@"^#define (\w+)\(([^)]*)\)(.*)$")] private static partial Regex Macro();
    [GeneratedRegex(@"^(\w+)\(([^()]*)\);?\s*$")] private static partial Regex Use();
}
